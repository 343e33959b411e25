// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scenarios to begin with.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result};

use crate::outcome::bad_input;
use crate::yaml::flow;

/// By name: what it is about, and its text.
pub const TEMPLATES: [(&str, &str, &str); 3] = [
    ("pin", "A pin by RDMA, and a truncate that meets it", include_str!("templates/pin.yaml")),
    ("lease", "A lease, and who breaks it", include_str!("templates/lease.yaml")),
    ("program", "A program of others, and what it says of its tests", include_str!("templates/program.yaml")),
];

/// What stands for the sentence that a person gives.
const ABOUT: &str = "ABOUT";

/// Writes a template as a new file, with its folders.
///
/// # Errors
/// Bad input when the file is there already.
pub fn write_template(text: &str, about: &str, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let text = text.replacen(ABOUT, &flow(&about.into()), 1);
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(bad_input(format!("{} is there already: name another", path.display())))
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Contracts;
    use crate::scenario::load_file;

    #[test]
    fn every_template_is_a_good_scenario_whatever_it_is_said_to_be_about() {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        let contracts = Contracts::load([ours].into_iter()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for about in ["What happens.", "a: b # c", "'", "[x"] {
            for (name, _, text) in TEMPLATES {
                let path = folder.path().join(format!("new/{name}.yaml"));
                write_template(text, about, &path).unwrap();
                let cases = load_file(folder.path(), &path, &contracts).unwrap();
                assert!(cases.iter().all(|case| case.about == about), "{name}");
                assert!(write_template(text, about, &path).unwrap_err().to_string().contains("already"));
                fs::remove_file(&path).unwrap();
            }
        }
    }
}
