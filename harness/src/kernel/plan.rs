// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a request to a plan: every input of a build found, read and put into one key, before
//! anything is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::config::{self, Asked};
use super::files::{self, Files};
use super::selftests::{self, Selftests};
use super::series::{self, Patch};
use super::source::{self, Pristine};
use super::spec::{self, Base, Made, Recipe};
use super::store::Built;
use super::{Options, Request, Variant, tools, tree};
use crate::doctor::{self, Stage};
use crate::home::Home;
use crate::outcome::bad_input;
use crate::progress::Progress;

/// Counts up when the same inputs would give another image.
const BUILDER: u32 = 1;
/// Told to `uname -r`, so that nobody takes such a kernel for the distribution's.
const LOCAL_VERSION: &str = "CONFIG_LOCALVERSION=\"-holdfast\"";

/// Where the source is.
pub(super) enum Input {
    /// Unpacked in the cache.
    Cached(Pristine),
    /// A commit of a person's tree, unpacked only when it must be built.
    Commit { tree: PathBuf, commit: String },
    /// What is in a person's tree now.
    Now { tree: PathBuf, files: Files },
}

/// Everything a build needs to know.
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) contract: String,
    pub(super) input: Input,
    /// The source, for people.
    pub(super) source: String,
    pub(super) tested: Option<String>,
    pub(super) patches: Vec<Patch>,
    pub(super) base: BaseConfig,
    /// What is put on the base: every request.
    pub(super) fragments: String,
    pub(super) asked: Vec<Asked>,
    pub(super) compiler: String,
    pub(super) selftests: Selftests,
    pub(super) key: String,
    /// Identity of the configuration that is asked for.
    pub(super) config_id: String,
    /// The work slot.
    pub(super) slot: String,
    /// The person's tree, if the slot belongs to one.
    pub(super) origin: Option<PathBuf>,
}

/// What the fragments are put on.
pub(super) enum BaseConfig {
    Target(Base),
    File(String),
}

/// Finds and reads all inputs. The network is used only when a source is not in the cache.
pub(super) fn plan(home: &Home, request: &Request, options: &Options, progress: &Progress) -> Result<Plan> {
    let spec = spec::spec(home, &request.base)?;
    let Made::Here(recipe) = &spec.made else { bail!("{} is not built here", spec.name) };
    let (fragments, asked) = fragments(home, recipe, request)?;
    let base = base_config(recipe, request)?;
    let mut patches = Vec::new();
    if request.tree.is_none() {
        patches.extend(series::read(&recipe.patches)?);
    }
    if let Some(path) = &request.series {
        patches.extend(series::read_series(&home.cache, path)?);
    }
    doctor::require(Stage::Kernel)?;
    let compiler = format!("{}; {}", tools::version_line("gcc")?, tools::version_line("ld")?);
    let Found { input, identity, source, tested, origin } =
        find_source(home, recipe, request, options, progress)?;

    let base_id = match &base {
        BaseConfig::Target(base) => base.target().to_owned(),
        BaseConfig::File(text) => digest(text),
    };
    let config_id = digest(format!("{base_id}\n{fragments}"));
    let patch_ids: Vec<String> = patches.iter().map(Patch::hash).collect();
    let selftests = selftests::read(home)?;
    let inputs = [
        BUILDER.to_string(),
        identity,
        config_id.clone(),
        patch_ids.join(" "),
        compiler.clone(),
        serde_json::to_string(&(&selftests, selftests::FLAGS))?,
    ];
    let key = digest(inputs.join("\n")).split_off(48);
    Ok(Plan {
        name: request.name(),
        contract: spec.contract,
        input,
        source,
        tested,
        patches,
        base,
        fragments,
        asked,
        compiler,
        selftests,
        key,
        config_id,
        slot: slot_name(request, origin.as_deref()),
        origin: origin.or_else(|| of_the_slot(request)?.canonicalize().ok()),
    })
}

fn digest(text: impl AsRef<[u8]>) -> String {
    files::hex(&Sha256::digest(text))
}

/// The requests in force, and the text that makes them. Comments are not in it: to reword one builds
/// nothing.
fn fragments(home: &Home, recipe: &Recipe, request: &Request) -> Result<(String, Vec<Asked>)> {
    let mut asked = Vec::new();
    let trims = if request.config.is_none() { recipe.trims.as_slice() } else { &[] };
    let fragments = recipe.fragments.iter().chain(trims).map(String::as_str);
    // Behind all others: what it asks for overrules them.
    for name in fragments.chain(request.variant.map(Variant::name)) {
        let path = spec::fragment_path(home, name);
        asked.extend(config::read_fragment(&path, &path.display().to_string())?);
    }
    let asked = config::effective(&asked);
    let mut text: String = asked.iter().map(|asked| format!("{}={}\n", asked.option, asked.value)).collect();
    text.push_str(LOCAL_VERSION);
    text.push('\n');
    Ok((text, asked))
}

fn base_config(recipe: &Recipe, request: &Request) -> Result<BaseConfig> {
    let Some(path) = &request.config else { return Ok(BaseConfig::Target(recipe.base)) };
    let text =
        fs::read_to_string(path).map_err(|error| bad_input(format!("--config {}: {error}", path.display())))?;
    if config::values(&text).is_empty() {
        return Err(bad_input(format!(
            "--config {}: no kernel configuration (no CONFIG_ line)",
            path.display()
        )));
    }
    Ok(BaseConfig::File(text))
}

struct Found {
    input: Input,
    identity: String,
    source: String,
    tested: Option<String>,
    origin: Option<PathBuf>,
}

fn find_source(
    home: &Home,
    recipe: &Recipe,
    request: &Request,
    options: &Options,
    progress: &Progress,
) -> Result<Found> {
    let Some(asked) = &request.tree else {
        let (pristine, tested) = source::first_usable(&home.cache, &recipe.sources, options.offline, progress)
            .with_context(|| format!("kernel {}", request.base))?;
        let (identity, source) = (pristine.identity.clone(), pristine.named.clone());
        return Ok(Found {
            input: Input::Cached(pristine),
            identity,
            source,
            tested: Some(tested),
            origin: None,
        });
    };
    let tree = tree::canonical(&asked.path)?;
    let origin = Some(tree.clone());
    if let Some(rev) = &asked.rev {
        let commit = source::commit_of(&tree, rev)?;
        let source = format!("{} at {rev} ({})", tree.display(), source::short(&commit));
        let identity = source::git_identity(&commit);
        return Ok(Found { input: Input::Commit { tree, commit }, identity, source, tested: None, origin });
    }
    let files = tree::scan(&home.cache, &tree)?;
    tree::check_is_kernel(&files, &format!("--tree {}", tree.display()))?;
    let identity = format!("files {}", files::identity(&files));
    let source = format!("{} as it is now", tree.display());
    Ok(Found { input: Input::Now { tree, files }, identity, source, tested: None, origin })
}

/// The series that a slot belongs to; none where it is shared.
fn of_the_slot(request: &Request) -> Option<&Path> {
    request.series.as_deref().filter(|_| request.slot.is_none())
}

/// One slot per series, tree and base configuration: what is built in turn there differs little.
fn slot_name(request: &Request, origin: Option<&Path>) -> String {
    if let Some(slot) = &request.slot {
        return slot.clone();
    }
    let full = |path: &Path| tools::show(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    let mut parts = vec![request.base.clone()];
    parts.extend(request.variant.map(|variant| variant.name().to_owned()));
    let mut is_ours = true;
    for path in [origin, request.series.as_deref(), request.config.as_deref()] {
        is_ours &= path.is_none();
        parts.push(path.map(full).unwrap_or_default());
    }
    if is_ours {
        return request.name_without_rev();
    }
    // The base only gives fragments to a tree; the patches of its own are left out.
    let hash = digest(parts.join("\n"));
    format!("{}-{}", request.name_without_rev(), hash.get(..8).unwrap_or(&hash))
}

impl Plan {
    /// The same image can be asked for by two names (a series that equals a kernel of ours): what is
    /// stored says who built it, what is returned says what was asked for.
    pub(super) fn label(&self, mut built: Built) -> Built {
        built.manifest.name.clone_from(&self.name);
        built.manifest.contract.clone_from(&self.contract);
        built
    }

    /// The requests, for the guest.
    pub(super) fn requests(&self) -> Vec<(String, String)> {
        self.asked.iter().map(|asked| (asked.option.clone(), asked.value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Own;

    #[test]
    fn a_variant_has_a_name_and_a_slot_of_its_own() {
        let plain = Request::named("mine-6.12");
        let debug = Request { variant: Some(Variant::Debug), ..plain.clone() };
        let trace = Request { variant: Some(Variant::Trace), ..plain.clone() };
        let series = |request: &Request| Request { series: Some("/s/v2".into()), ..request.clone() };
        let table = [
            (plain.clone(), "mine-6.12", "mine-6.12"),
            (debug.clone(), "mine-6.12-debug", "mine-6.12-debug"),
            (trace, "mine-6.12-trace", "mine-6.12-trace"),
            (series(&plain), "mine-6.12+v2", "mine-6.12+v2-"),
            (series(&debug), "mine-6.12-debug+v2", "mine-6.12-debug+v2-"),
            (Request { slot: Some("shared".into()), ..series(&debug) }, "mine-6.12-debug+v2", "shared"),
        ];
        for (request, name, slot) in &table {
            assert_eq!(request.name(), *name);
            assert!(slot_name(request, None).starts_with(slot), "{}", slot_name(request, None));
        }
        assert_eq!(slot_name(&table[0].0, None), "mine-6.12");
        assert_eq!(slot_name(&table[1].0, None), "mine-6.12-debug");
        let slots: std::collections::BTreeSet<String> =
            table.iter().map(|(request, ..)| slot_name(request, None)).collect();
        assert_eq!(slots.len(), table.len());
    }

    #[test]
    fn the_debug_fragment_overrules_all_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("kernel-configs/fragments");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("base", "CONFIG_A=y\n"),
            ("lean", "CONFIG_SLUB_TINY=y\nCONFIG_KASAN=n\n"),
            ("debug", "CONFIG_SLUB_TINY=n\nCONFIG_KASAN=y\n"),
        ] {
            fs::write(folder.join(format!("{name}.config")), text).unwrap();
        }
        let (data, own) = (dir.path().to_owned(), Own::default());
        let home = Home { cache: data.join("cache"), runs: data.join("runs"), data, is_clone: true, own };
        let recipe = Recipe {
            sources: Vec::new(),
            base: Base::TinyConfig,
            fragments: vec!["base".into()],
            trims: vec!["lean".into()],
            patches: Vec::new(),
        };
        let text = |debug: bool| {
            let variant = debug.then_some(Variant::Debug);
            let request = Request { variant, ..Request::named("mine") };
            fragments(&home, &recipe, &request).unwrap().0.replace(LOCAL_VERSION, "")
        };
        assert_eq!(text(false).trim(), "CONFIG_A=y\nCONFIG_KASAN=n\nCONFIG_SLUB_TINY=y");
        assert_eq!(text(true).trim(), "CONFIG_A=y\nCONFIG_KASAN=y\nCONFIG_SLUB_TINY=n");
    }
}
