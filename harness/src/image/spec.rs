// SPDX-License-Identifier: MIT OR Apache-2.0
//! The description of an image: `images/NAME.yaml`.

use anyhow::Result;
use serde::Deserialize;

use crate::home::Home;
use crate::outcome::bad_input;
use crate::yaml::Document;

/// What an image holds besides the agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// Programs of the host.
    pub(super) tools: Vec<Tool>,
    /// Files of the host that programs open by name, what they load included.
    #[serde(default)]
    pub(super) files: Vec<HostFile>,
}

/// A file of the host that goes into the image under the same path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostFile {
    /// Its path.
    pub(super) file: String,
    /// The Debian package that brings it.
    pub(super) package: String,
    /// What the guest needs it for.
    #[serde(rename = "for")]
    pub(super) reason: String,
}

/// A program of the host that goes into the image with the libraries it loads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    /// Its name on this host's path.
    pub(super) tool: String,
    /// Its path in the image.
    pub(super) to: String,
    /// The Debian package that brings it.
    pub(super) package: String,
    /// What the guest needs it for.
    #[serde(rename = "for")]
    pub(super) reason: String,
    /// The image is made without it where the host lacks it.
    #[serde(default)]
    pub(super) optional: bool,
}

impl Spec {
    /// Reads a description by the image's name.
    pub(super) fn read(home: &Home, name: &str) -> Result<Self> {
        let path = home.images().join(format!("{name}.yaml"));
        if !path.is_file() {
            return Err(bad_input(format!("there is no image {name}: {} does not exist", path.display())));
        }
        Self::of(&Document::read(&path)?)
    }

    fn of(document: &Document) -> Result<Self> {
        let spec: Self = document.load()?;
        for (index, tool) in spec.tools.iter().enumerate() {
            let fault = |field: &str, message: &str| {
                document.fault(&crate::path!["tools", index, field], None, message)
            };
            if !tool.to.starts_with('/')
                || tool.to.split('/').any(|part| part == "..")
                || tool.to.ends_with('/')
            {
                return Err(fault(
                    "to",
                    "a path in the image begins with `/` and names a file, as /sbin/mkfs.xfs does",
                ));
            }
            if tool.reason.trim().is_empty() {
                return Err(fault("for", "say what the guest needs it for"));
            }
        }
        for (index, file) in spec.files.iter().enumerate() {
            if !file.file.starts_with('/') || file.file.split('/').any(|part| part == "..") {
                let message = "a file of the host is named by its whole path";
                return Err(document.fault(&crate::path!["files", index, "file"], None, message));
            }
            if file.reason.trim().is_empty() {
                let message = "say what the guest needs it for";
                return Err(document.fault(&crate::path!["files", index, "for"], None, message));
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Spec> {
        Spec::of(&Document { file: "x.yaml".into(), text: text.into() })
    }

    #[test]
    fn the_images_of_this_repository_are_sound() {
        let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        for name in ["default", "floor"] {
            let document = Document::read(&images.join(format!("{name}.yaml"))).unwrap();
            Spec::of(&document).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home {
            data: folder.path().to_owned(),
            is_clone: true,
            cache: folder.path().join("cache"),
            runs: folder.path().join("runs"),
            own: crate::home::Own::default(),
        };
        std::fs::create_dir(home.images()).unwrap();
        std::fs::write(home.images().join("x.yaml"), "#".repeat((256 << 10) + 1)).unwrap();
        let message = Spec::read(&home, "x").unwrap_err().to_string();
        assert!(message.ends_with("x.yaml:1:1: the file has 257 KiB; at most 256 are read"), "{message}");
    }

    #[test]
    fn a_fault_names_its_place() {
        let check = |text: &str, want: &str| {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} lacks {want:?}");
        };
        check("tools:\n  - {tool: a, too: /a, package: p, for: x}\n", "x.yaml:2:");
        check("tools:\n  - {tool: a, too: /a, package: p, for: x}\n", "too");
        check("tools:\n  - {tool: a, to: a, package: p, for: x}\n", "begins with `/`");
        check("tools:\n  - {tool: a, to: /../a, package: p, for: x}\n", "x.yaml:2:");
        check("tools:\n  - {tool: a, to: /a, package: p, for: ''}\n", "say what");
        check("tools:\n  - {tool: a, to: /a, for: x}\n", "package");
        check("{}\n", "tools");
        check("tools: []\nfiles: [{file: etc/x, package: p, for: x}]\n", "whole path");
        check("tools: []\nfiles: [{file: /etc/x, package: p, for: ''}]\n", "say what");
        check("tools: []\nfiles: [{path: /etc/x, package: p, for: x}]\n", "x.yaml:2:");
    }
}
