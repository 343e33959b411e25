// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slots on a small tree, with objects that only pretend.

use std::os::unix::fs::MetadataExt as _;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self { dir };
        for (path, text) in [("Makefile", "all"), ("mm/gup.c", "gup"), ("mm/old.c", "old"), ("fs/dax.c", "dax")]
        {
            bench.write(path, text);
        }
        files::age(&bench.source()).unwrap();
        bench
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A new file: what links to the old one keeps its content.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
    }

    fn slot(&self, name: &str) -> Slot {
        let lock = scratch::lock(&self.cache().join("locks").join(name)).unwrap();
        Slot::open(&self.cache(), name, lock)
    }

    fn sync(&self, slot: &Slot, may_link: bool) -> Synced {
        let source = self.source();
        let wanted = Wanted {
            files: files::scan(&source).unwrap(),
            root: &source,
            may_link,
            patched: BTreeSet::new(),
            patched_root: None,
        };
        let synced = slot.sync(&self.cache(), &wanted, "config").unwrap();
        let mut present = files::scan(&slot.tree()).unwrap();
        present.retain(|path, _| !path.starts_with(OBJECTS));
        assert_eq!(present, wanted.files);
        synced
    }

    /// What make would leave: objects newer than every source.
    fn pretend_to_build(&self, slot: &Slot, config: &str) {
        slot.begin_build(config).unwrap();
        fs::create_dir_all(slot.objects().join("tools/objtool")).unwrap();
        fs::write(slot.objects().join("vmlinux.o"), "o").unwrap();
        let tree = slot.tree();
        fs::write(slot.objects().join("tools/objtool/.check.o.cmd"), format!("cc -I{}/tools", tree.display()))
            .unwrap();
        slot.end_build(true).unwrap();
    }
}

fn newer_than_objects(slot: &Slot) -> Vec<String> {
    let built = fs::metadata(slot.objects().join("vmlinux.o")).unwrap().modified().unwrap();
    let mut newer = files::walk(&slot.tree()).unwrap();
    newer.retain(|path| {
        !path.starts_with(OBJECTS) && slot.tree().join(path).metadata().unwrap().modified().unwrap() > built
    });
    newer.sort();
    newer
}

#[test]
fn only_files_with_another_content_get_a_new_time() {
    let bench = Bench::new();
    let slot = bench.slot("a");
    assert_eq!(bench.sync(&slot, true), Synced::default());
    bench.pretend_to_build(&slot, "config");
    assert_eq!(bench.sync(&slot, true).changed, 0);
    assert!(slot.state().built);

    // Another content, the same content with another time, a new and a removed file.
    bench.write("mm/gup.c", "patched");
    bench.write("fs/dax.c", "dax");
    bench.write("mm/new/new.c", "new");
    fs::remove_file(bench.source().join("mm/old.c")).unwrap();
    assert_eq!(bench.sync(&slot, true).changed, 3);
    assert_eq!(newer_than_objects(&slot), ["mm/gup.c", "mm/new/new.c"]);
    assert!(!slot.state().built);

    fs::remove_dir_all(bench.source().join("mm/new")).unwrap();
    assert_eq!(bench.sync(&slot, true).changed, 1);
    assert!(!slot.tree().join("mm/new").exists());
}

#[test]
fn objects_come_from_the_nearest_built_slot() {
    let bench = Bench::new();
    for (name, text) in [("far", "far"), ("near", "gup")] {
        bench.write("mm/gup.c", text);
        bench.write("mm/old.c", text);
        let slot = bench.slot(name);
        bench.sync(&slot, true);
        bench.pretend_to_build(&slot, "config");
    }
    bench.write("mm/gup.c", "third");
    let unbuilt = bench.slot("unbuilt");
    bench.sync(&unbuilt, true);
    unbuilt.set_state(&State { built: false, ..unbuilt.state() }).unwrap();

    let slot = bench.slot("new");
    let synced = bench.sync(&slot, true);
    assert_eq!(synced, Synced { cloned_from: Some("near".into()), changed: 1 });
    assert_eq!(newer_than_objects(&slot), ["mm/gup.c"]);
    let command = fs::read_to_string(slot.objects().join("tools/objtool/.check.o.cmd")).unwrap();
    assert_eq!(command, format!("cc -I{}/tools", slot.tree().display()));
}

#[test]
fn a_slot_of_another_configuration_starts_over_from_a_relative_of_the_right_one() {
    let bench = Bench::new();
    let slot = bench.slot("a");
    bench.sync(&slot, true);
    bench.pretend_to_build(&slot, "old config");
    // Alone, what is there is better than nothing.
    assert_eq!(bench.sync(&slot, true).cloned_from, None);
    let other = bench.slot("b");
    bench.sync(&other, true);
    bench.pretend_to_build(&other, "config");
    drop(other);
    assert_eq!(bench.sync(&slot, true).cloned_from.as_deref(), Some("b"));
}

#[test]
fn a_slot_links_the_cache_and_copies_a_person() {
    let bench = Bench::new();
    let links = |slot: &Slot| fs::metadata(slot.tree().join("Makefile")).unwrap().nlink();
    let linked = bench.slot("linked");
    bench.sync(&linked, true);
    assert_eq!(links(&linked), 2);
    let copied = bench.slot("copied");
    bench.sync(&copied, false);
    assert_eq!(links(&copied), 1);
}

#[test]
fn a_killed_sync_is_put_right() {
    let bench = Bench::new();
    let slot = bench.slot("a");
    bench.sync(&slot, true);
    bench.pretend_to_build(&slot, "config");
    // Killed after replacing one of the pending files, before the list was written.
    fs::write(slot.dir.join("pending"), "mm/gup.c\0").unwrap();
    fs::remove_file(slot.tree().join("mm/gup.c")).unwrap();
    fs::write(slot.tree().join("mm/gup.c"), "half").unwrap();
    assert_eq!(bench.sync(&slot, true).changed, 1);
    assert!(!slot.dir.join("pending").exists());
}

#[test]
fn a_killed_build_loses_its_last_targets_only() {
    let bench = Bench::new();
    let slot = bench.slot("a");
    bench.sync(&slot, true);
    bench.pretend_to_build(&slot, "config");
    let kept = slot.objects().join("kept.o");
    fs::write(&kept, "o").unwrap();
    files::set_old(&kept).unwrap();
    slot.begin_build("config").unwrap();
    fs::write(slot.objects().join("torn.o"), "half").unwrap();
    slot.begin_build("config").unwrap();
    assert!(kept.exists());
    assert!(!slot.objects().join("torn.o").exists());
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let bench = Bench::new();
    let slot = bench.slot("a");
    let source = bench.source();
    let wanted = Wanted {
        files: files::scan(&source).unwrap(),
        root: &source,
        may_link: false,
        patched: BTreeSet::new(),
        patched_root: None,
    };
    bench.write("mm/gup.c", "edited meanwhile");
    let error = slot.sync(&bench.cache(), &wanted, "config").unwrap_err().to_string();
    assert!(error.contains("mm/gup.c changed while it was read"), "{error}");
}
