// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest needs of a kernel that was not built from our fragments: `kernel-configs/prebuilt.yaml`.
//!
//! The fragments themselves say what is needed and by whom; this file says what of them only our own builds
//! need, and which modules go with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::super::config::{self, Asked};
use super::super::spec::fragment_path;
use crate::home::Home;
use crate::outcome::bad_input;
use crate::path;
use crate::yaml::Document;

const FILE_NAME: &str = "prebuilt.yaml";
const PREFIX: &str = "CONFIG_";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    needed: Vec<String>,
    useful: Vec<String>,
    otherwise: BTreeMap<String, String>,
    modules: Vec<Wanted>,
    arguments: Vec<Argument>,
}

/// A module that is loaded where its option is `m`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    module: String,
    /// What other kernels call it.
    #[serde(default)]
    or: Vec<String>,
    /// Without its `CONFIG_`.
    option: String,
    /// An option, likewise, without which nobody uses it.
    #[serde(default)]
    with: Option<String>,
    /// Of what no fragment asks for: what it is good for.
    #[serde(rename = "for", default, skip_serializing)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Argument {
    argument: String,
    #[serde(rename = "for")]
    reason: String,
}

/// What is asked of every such kernel.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    path: PathBuf,
    /// Without one of these there is no guest.
    needed: Vec<Asked>,
    /// Without one of these some operations cannot be done.
    useful: Vec<Asked>,
    modules: Vec<Wanted>,
    /// Arguments that such a kernel is given.
    pub(super) arguments: String,
}

/// What came of looking at a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// Modules that are loaded for it, in order: of each the names that it may have.
    pub(super) modules: Vec<Vec<String>>,
    /// Options that it was built without, and nobody needs.
    pub(super) lacks: BTreeSet<String>,
    /// Each option that is needed, as it is: what a guest can compare with its own.
    pub(super) as_it_is: Vec<(String, String)>,
}

impl Needs {
    /// Reads what is asked.
    ///
    /// # Errors
    /// Bad input when a description does not parse.
    pub(super) fn read(home: &Home) -> Result<Self> {
        let path = home.kernel_configs().join(FILE_NAME);
        let document = Document::read(&path)?;
        let file: File = document.load()?;
        let asked = |names: &[String]| -> Result<Vec<Asked>> {
            let mut all = Vec::new();
            for name in names {
                let path = fragment_path(home, name);
                all.extend(config::read_fragment(&path, &path.display().to_string())?);
            }
            all.retain(|asked| asked.value == "y");
            Ok(all)
        };
        let (needed, useful) = (asked(&file.needed)?, asked(&file.useful)?);
        let spared: BTreeSet<String> =
            file.otherwise.keys().map(|option| format!("{PREFIX}{option}")).collect();
        if let Some(odd) = spared.iter().find(|option| !needed.iter().any(|asked| asked.option == **option)) {
            let option = odd.trim_start_matches(PREFIX);
            return Err(document.fault(
                &path!["otherwise", option],
                None,
                "no fragment of `needed` asks for it",
            ));
        }
        if let Some((option, _)) = file.otherwise.iter().find(|(_, because)| because.trim().is_empty()) {
            return Err(document.fault(&path!["otherwise", option.as_str()], None, "say why"));
        }
        let is_asked = |option: &str| {
            let option = format!("{PREFIX}{option}");
            needed.iter().chain(&useful).any(|asked| asked.option == option)
        };
        for (nr, wanted) in file.modules.iter().enumerate() {
            if wanted.reason.trim().is_empty() && !is_asked(&wanted.option) {
                let message = "no fragment asks for its option: say what the module is for";
                return Err(document.fault(&path!["modules", nr, "for"], None, message));
            }
        }
        if let Some(nr) = file.arguments.iter().position(|one| one.reason.trim().is_empty()) {
            return Err(document.fault(&path!["arguments", nr, "for"], None, "say what it is for"));
        }
        let (spared, needed): (Vec<Asked>, Vec<Asked>) =
            needed.into_iter().partition(|asked| spared.contains(&asked.option));
        let arguments: Vec<String> = file.arguments.into_iter().map(|one| one.argument).collect();
        Ok(Self {
            path,
            needed,
            useful: [useful, spared].concat(),
            modules: file.modules,
            arguments: arguments.join(" "),
        })
    }

    /// All of it as text, for keys.
    pub(super) fn identity(&self) -> String {
        let options = |list: &[Asked]| list.iter().map(|one| one.option.clone()).collect::<Vec<_>>();
        serde_json::json!([options(&self.needed), options(&self.useful), self.modules, self.arguments])
            .to_string()
    }

    /// Looks at a kernel's configuration; `named` is what messages call it.
    ///
    /// # Errors
    /// Bad input that names each option that is missing, who needs it, and where that is written.
    pub(super) fn check(&self, config: &str, named: &str) -> Result<Checked> {
        let values = config::values(config);
        let value = |option: &str| values.get(option).copied().unwrap_or("n");
        let mut missing = Vec::new();
        let mut checked = Checked::default();
        for asked in &self.needed {
            let Asked { option, place, needed_by, .. } = asked;
            let got = value(option);
            let module = || self.modules.iter().any(|one| format!("{PREFIX}{}", one.option) == *option);
            match got {
                "y" => {}
                "m" if module() => {}
                "m" => missing.push(format!(
                    "{option}=m, and {} does not say which module that is ({place})",
                    self.path.display()
                )),
                _ => missing.push(format!("{option} is {got}; needed by {needed_by} ({place})")),
            }
            checked.as_it_is.push((option.clone(), got.to_owned()));
        }
        if !missing.is_empty() {
            return Err(bad_input(format!(
                "{named}: no guest can be made of this kernel:\n  {}",
                missing.join("\n  ")
            )));
        }
        let absent = self.useful.iter().map(|asked| &asked.option).filter(|option| value(option) == "n");
        checked.lacks = absent.cloned().collect();
        let option = |name: &str| value(&format!("{PREFIX}{name}"));
        let is_used = |one: &&Wanted| one.with.as_deref().is_none_or(|with| option(with) != "n");
        let loaded = self.modules.iter().filter(|one| option(&one.option) == "m").filter(is_used);
        checked.modules =
            loaded.map(|one| [one.module.clone()].into_iter().chain(one.or.clone()).collect()).collect();
        Ok(checked)
    }
}

/// The configuration that a person has given or that lies where it usually does.
pub(super) fn read_config(path: &std::path::Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if config::values(&text).is_empty() {
        return Err(bad_input(format!("{}: no kernel configuration (no CONFIG_ line)", path.display())));
    }
    Ok(text)
}

/// The version that a configuration is of: `# Linux/x86 6.1.177 Kernel Configuration`.
pub(super) fn version_of(config: &str) -> Option<&str> {
    let line = config.lines().take(10).find_map(|line| line.strip_prefix("# Linux/"))?;
    line.split_whitespace().nth(1)
}

/// A value of it that is text.
pub(super) fn text_of(config: &str, option: &str) -> Option<String> {
    config::values(config).get(option).map(|value| value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::home::Own;

    fn ours() -> Home {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Home { cache: data.join("no"), runs: data.join("no"), data, is_clone: true, own: Own::default() }
    }

    /// A configuration that has all that is needed, `m` where a module is named.
    fn good(needs: &Needs) -> String {
        let value = |asked: &Asked| {
            let is_module = needs.modules.iter().any(|one| format!("{PREFIX}{}", one.option) == asked.option);
            format!("{}={}\n", asked.option, if is_module { "m" } else { "y" })
        };
        needs.needed.iter().chain(&needs.useful).map(value).collect()
    }

    #[test]
    fn what_is_asked_here_is_sound_and_can_be_met() {
        let needs = Needs::read(&ours()).unwrap();
        let checked = needs.check(&good(&needs), "c").unwrap();
        assert!(checked.lacks.is_empty());
        for module in ["virtio_console", "nd_pmem", "ext4", "xfs", "rdma_rxe", "ib_uverbs"] {
            assert!(checked.modules.iter().any(|names| names[0] == module), "{module}");
        }
        let all_in_one = good(&needs).replace("=m", "=y");
        assert_eq!(needs.check(&all_in_one, "c").unwrap().modules, [] as [Vec<String>; 0]);
        // Without siw nobody connects over rdma_cm.
        let loads_ucm =
            |config: &str| needs.check(config, "c").unwrap().modules.iter().any(|names| names[0] == "rdma_ucm");
        assert!(loads_ucm(&good(&needs)));
        assert!(loads_ucm(&good(&needs).replace("RDMA_SIW=m", "RDMA_SIW=y")));
        assert!(!loads_ucm(&good(&needs).replace("CONFIG_RDMA_SIW=m", "")));
    }

    #[test]
    fn a_missing_option_is_told_with_who_needs_it_and_where() {
        let needs = Needs::read(&ours()).unwrap();
        let without = |option: &str| {
            let config = good(&needs).replace(&format!("CONFIG_{option}="), "CONFIG_OTHER=");
            needs.check(&config, "config-6.1")
        };
        let check = |option: &str, words: &[&str]| {
            let error = without(option).unwrap_err();
            assert!(error.is::<crate::outcome::BadInput>());
            for word in [&["config-6.1: ", &format!("CONFIG_{option} is n; needed by ")], words].concat() {
                assert!(error.to_string().contains(word), "{error} lacks {word}");
            }
        };
        check("FS_DAX", &["every case with a DAX file", "dax.config:"]);
        check("RDMA_RXE", &["every case with a memory region", "rdma.config:"]);
        check("DEVTMPFS", &["the agent (PID 1)", "base.config:"]);
        let lacks = without("GUP_TEST").unwrap().lacks;
        assert_eq!(lacks, ["CONFIG_GUP_TEST".to_owned()].into());
        assert!(without("KERNEL_GZIP").unwrap().lacks.contains("CONFIG_KERNEL_GZIP"));
    }

    #[test]
    fn a_configuration_says_what_it_is_of() {
        let config = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.1.177 Kernel Configuration\n#\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian)\"\n";
        assert_eq!(version_of(config), Some("6.1.177"));
        assert_eq!(version_of("CONFIG_A=y\n"), None);
        assert_eq!(text_of(config, "CONFIG_CC_VERSION_TEXT").unwrap(), "gcc-12 (Debian)");
    }
}
