// SPDX-License-Identifier: MIT OR Apache-2.0
//! docs/scenarios.md, docs/programs.md and docs/proposals.md: their examples are files of a folder of one's own, and
//! all of them are good.

use std::fs;

use super::*;

/// The indented blocks that begin with `# PATH`, by that path.
fn examples(page: &str) -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("    ") {
            Some(name) if name.starts_with("# ") && name.ends_with(".yaml") => {
                examples.push((name[2..].to_owned(), String::new()));
                inside = true;
            }
            Some(code) if inside => {
                let text = &mut examples.last_mut().unwrap().1;
                text.push_str(code);
                text.push('\n');
            }
            _ => inside = false,
        }
    }
    examples
}

/// The examples of a page, and the ids of the cases in them, in order.
fn read(page: &str) -> (Vec<(String, String)>, Vec<String>) {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let page = fs::read_to_string(ours.join("../docs").join(page)).unwrap();
    let examples = examples(&page);
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in &examples {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let contracts = Contracts::load([ours, folder.path().to_owned()].into_iter()).unwrap();
    let all = load_all(folder.path(), &contracts).unwrap();
    let mut ids: Vec<String> = all.into_iter().map(|one| one.id).collect();
    ids.sort_unstable();
    (examples, ids)
}

#[test]
fn the_examples_of_programs_are_good() {
    assert_eq!(read("programs.md").1, ["mine[on=ext4]", "mine[on=tmpfs]", "mine[on=xfs]", "verbs"]);
}

#[test]
fn the_example_of_a_proposal_is_good() {
    let cases = ["[fs=ext4,provider=siw]", "[fs=ext4]", "[fs=xfs,provider=siw]", "[fs=xfs]"];
    assert_eq!(read("proposals.md").1, cases.map(|case| format!("refused{case}")));
}

#[test]
fn every_example_of_the_page_is_good() {
    let (examples, ids) = read("scenarios.md");
    let waits = ["wait[fs=ext4,provider=siw]", "wait[fs=ext4]", "wait[fs=xfs,provider=siw]", "wait[fs=xfs]"];
    assert_eq!(ids, [&["dark", "mine[fs=ext4]", "mine[fs=xfs]", "rounds", "rush"], &waits[..]].concat());
    // Every form stands in an example that was read.
    let whole: String = examples.into_iter().map(|(_, text)| text).collect();
    let forms = schema()["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let apart = ["control", "ends"];
    let words = [
        "use",
        "with",
        "together",
        "repeat",
        "stress",
        "reaches",
        "never_within",
        "still",
        "await",
        "after",
        "twin",
        "features",
        "phrases",
        "as",
    ];
    for word in forms.iter().map(String::as_str).filter(|word| !apart.contains(word)).chain(words) {
        assert!(whole.contains(&format!("{word}:")), "no example has `{word}:`");
    }
}
