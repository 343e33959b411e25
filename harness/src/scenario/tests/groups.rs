// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps that are written once: shared files, rounds, operations that start together.

use std::fs;

use super::*;

const GROUPS: &str = "\
about: A test.
because: a test
contracts: [unguarded]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {a: {}, b: {}}
steps:
  - repeat: 3
    steps:
      - {id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}}
      - {id: map, by: a, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
      - {by: b, do: {size: {file: data}}, needs: [map]}
  - {by: a, do: {munmap: {map: $map}}}
  - together:
      - {id: x, by: a, do: {truncate: {file: data, size_kib: 0}}}
      - {id: y, by: b, do: {truncate: {file: data, size_kib: 4}}}
  - {await: x, expect: ok}
  - {await: y, expect: ok}
";

fn wrong(from: &str, to: &str) -> String {
    assert!(GROUPS.contains(from), "the good scenario has no `{from}`");
    load(&GROUPS.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn rounds_have_ids_of_their_own_and_mean_the_last_from_outside() {
    let case = load(GROUPS).unwrap().remove(0);
    let ids: Vec<&str> = case.steps.iter().map(|step| step.id.as_str()).collect();
    let rounds = ["fd.1", "map.1", "#3", "fd.2", "map.2", "#6", "fd.3", "map.3", "#9"];
    assert_eq!(ids, [&rounds[..], &["#10", "x", "y", "#13", "#14"]].concat());
    let op = |nr: usize| serde_json::to_string(&case.steps[nr].action).unwrap();
    assert!(op(4).contains(r#""fd":"$fd.2""#), "{}", op(4));
    assert!(op(9).contains(r#""map":"$map.3""#), "{}", op(9));
    assert_eq!(case.steps[5].needs, ["map.2"]);
}

#[test]
fn what_starts_together_is_started_one_after_the_other() {
    let case = load(GROUPS).unwrap().remove(0);
    let group: Vec<&Step> = case.steps.iter().filter(|step| step.together.as_deref() == Some("x")).collect();
    assert_eq!(group.len(), 2);
    assert!(group.iter().all(|step| matches!(step.action, Action::Start { .. })));
}

#[test]
fn a_mistake_in_a_group_has_its_place() {
    let table = [
        ("repeat: 3", "repeat: 1", "s.yaml:7:13: steps[0].repeat: a group is repeated 2 to 64 times"),
        ("repeat: 3", "repeat: 65", "s.yaml:7:13: steps[0].repeat: a group is repeated 2 to 64 times"),
        ("repeat: 3", "reapeat: 3", "s.yaml:7:5: steps[0]: unknown field `reapeat`"),
        (
            "fd: $fd",
            "fd: $df",
            "s.yaml:10:42: steps[0].steps[1].do.mmap: unknown handle `df`; did you mean `fd`?",
        ),
        ("open:", "opne:", "s.yaml:9:30: steps[0].steps[0].do: unknown word `opne`; did you mean `open`?"),
        ("needs: [map]", "needs: [mpa]", "s.yaml:11:51: steps[0].steps[2].needs: unknown step `mpa`"),
        ("id: map", "id: MAP", "s.yaml:10:14: steps[0].steps[1].id: an id is made of small letters"),
        ("id: y, by: b", "id: y, by: a", "s.yaml:15:21: steps[2].together[1].by: `a` does one thing at a time"),
        (
            "  - {await: y, expect: ok}\n",
            "",
            "s.yaml:15:9: steps[2].together[1]: it is started and never awaited",
        ),
        (
            "id: y, by: b, do",
            "id: y, by: b, dol",
            "s.yaml:15:24: steps[2].together[1]: unknown field `dol`; did you mean `do`?",
        ),
        (
            "{by: b, do: {size: {file: data}}, needs: [map]}",
            "{repeat: 2, steps: []}",
            "s.yaml:11:9: steps[0].steps[2]: a group stands in no other",
        ),
        (
            "id: x, by: a",
            "id: fd, by: a",
            "s.yaml:14:14: steps[2].together[0].id: `fd.3` is the id of an earlier step",
        ),
    ];
    all_said(table.into_iter().map(|(from, to, start)| (to, start, wrong(from, to))));
    let one = GROUPS.replace("      - {id: y, by: b, do: {truncate: {file: data, size_kib: 4}}}\n", "");
    assert!(load(&one).unwrap_err().to_string().contains("2 to 8 operations are started together"));
}

const STRESS: &str = "\
about: A test.
because: a test
contracts: [mainline, unguarded]
files: {data: {on: ext4, size_kib: 64, pattern: 1}}
actors: {a: {rdma: true}, b: {}}
steps:
  - {id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}}
  - {id: map, by: a, do: {mmap: {fd: $fd, len_kib: 64, flags: [MAP_SHARED]}}}
  - stress: rush
    for_ms: 2000
    actors:
      a:
        - {id: pin, do: {reg_mr: {map: $map, access: []}}, expect_by: {mainline: EOPNOTSUPP, unguarded: 'one of: ok, EFAULT'}, reaches: ok}
        - {id: unpin, do: {dereg_mr: {mr: $pin}}}
      b:
        - {id: cut, do: {truncate: {file: data, size_kib: 0}}, expect: ok, reaches: ok, proves: [pins-work]}
  - {by: b, do: {size: {file: data}}}
";

#[test]
fn stress_is_written_out_as_what_may_be_drawn() {
    let contracts = Contracts::of(CONTRACTS_YAML);
    let case = load(STRESS).unwrap().remove(0);
    let under = |name: &str| written(&case, &Under::new(name, contracts.get(name).unwrap(), [])).steps;
    let all = under("unguarded");
    let labels: Vec<String> = all.iter().map(|step| step.label()).collect();
    let drawn = ["a: reg_mr (drawn in rush)", "a: dereg_mr (drawn in rush)", "b: truncate (drawn in rush)"];
    assert_eq!(labels[2..5], drawn);
    assert!(all[2..5].iter().all(|step| step.group() == Some("rush")) && all[5].group().is_none());
    assert_eq!(all[2].reaches.as_ref().map(ToString::to_string).as_deref(), Some("ok"));
    let mainline = under("mainline");
    assert_eq!(mainline[2].reaches, None, "what is refused reaches nothing else");
    assert_eq!(mainline[3].excluded.as_deref(), Some("`pin` is refused under mainline"));
}

#[test]
fn a_mistake_in_stress_has_its_place() {
    let table = [
        ("for_ms: 2000", "for_ms: 20", "s.yaml:10:13: steps[2].for_ms: a stress lasts 500 to 3600000 ms"),
        (
            "for_ms: 2000",
            "for_mss: 2000",
            "s.yaml:10:5: steps[2]: unknown field `for_mss`; did you mean `for_ms`?",
        ),
        (
            "reaches: ok}",
            "reaches: EIO}",
            "s.yaml:13:137: steps[2].actors.a[0].reaches: `EIO` is nowhere expected",
        ),
        ("id: unpin, do", "id: unpin, dot", "s.yaml:14:23: steps[2].actors.a[1]: unknown field `dot`"),
        ("mr: $pin", "mr: $pinn", "s.yaml:14:43: steps[2].actors.a[1].do.dereg_mr: unknown handle `pinn`"),
        ("      b:", "      c:", "s.yaml:16:11: steps[2].actors.c[0].by: unknown actor `c`"),
        ("{size: {file: data}}", "{connect: {to: a}}", "s.yaml:17:"),
        ("{truncate: {file: data, size_kib: 0}}", "{wait: {actor: a}}", "s.yaml:16:"),
        (
            "      b:\n        - {id: cut, do: {truncate: {file: data, size_kib: 0}}, expect: ok, reaches: ok, proves: [pins-work]}\n",
            "      b: []\n",
            "s.yaml:15:10: steps[2].actors.b: an actor draws from 1 to 16",
        ),
        ("  - {by: b, do: {size: {file: data}}}", "  - {by: a, do: {dereg_mr: {mr: $pin}}}", "s.yaml:17:"),
    ];
    let wrong = |from: &str, to: &str| {
        assert!(STRESS.contains(from), "the good scenario has no `{from}`");
        load(&STRESS.replacen(from, to, 1)).expect_err(to).to_string()
    };
    all_said(table.into_iter().map(|(from, to, start)| (to, start, wrong(from, to))));
    let late = wrong("  - {by: b, do: {size: {file: data}}}", "  - {by: a, do: {dereg_mr: {mr: $pin}}}");
    assert!(late.contains("`$pin` is let go at the end of the stress `rush`"), "{late}");
    assert!(wrong("{truncate: {file: data, size_kib: 0}}", "{wait: {actor: a}}").contains("nothing to draw"));
    // What a choice must not lie within is another actor's, and results in something.
    let within = |id: &str| format!("never_within: {id}, expect: ok, reaches: ok, proves");
    let from = "expect: ok, reaches: ok, proves";
    load(&STRESS.replacen(from, &within("pin"), 1)).unwrap();
    assert!(
        wrong(from, &within("pinn")).contains("unknown choice of another actor `pinn`; did you mean `pin`?")
    );
    for id in ["unpin", "cut", "map"] {
        assert!(wrong(from, &within(id)).contains(&format!("unknown choice of another actor `{id}`")), "{id}");
    }
    // What it is drawn after is written before it, of the same actor.
    let after = |id: &str| format!("mr: $pin}}}}, after: {id}");
    load(&STRESS.replacen("mr: $pin}}", &after("pin"), 1)).unwrap();
    assert!(
        wrong("mr: $pin}}", &after("pinn"))
            .contains("unknown earlier choice of this actor `pinn`; did you mean `pin`?")
    );
    for id in ["unpin", "cut", "map"] {
        let told = wrong("mr: $pin}}", &after(id));
        assert!(
            told.contains(&format!("steps[2].actors.a[1].after: unknown earlier choice of this actor `{id}`")),
            "{told}"
        );
    }
    let many = format!("      b:\n{}", "        - {id: x, do: {pipe: {}}}\n".repeat(17));
    assert!(wrong("      b:\n", &many).contains("an actor draws from 1 to 16 operations"));
}

const SHARED: &str = "\
about: What several begin with.
parameters: [fs]
files: {data: {on: $fs, size_kib: 64, pattern: 1}}
actors: {a: {}}
steps:
  - {id: fd, by: a, do: {open: {file: data, flags: [O_RDWR]}}, expect_by: {mainline: ok, else: ok}, proves: [pins-work]}
";
const INCLUDES: &str = "\
about: A test.
because: a test
contracts: [mainline]
matrix: {fs: [ext4, xfs]}
include: [begin]
actors: {b: {}}
steps:
  - {by: a, do: {close: {fd: $fd}}}
";

fn included(shared: &str, own: &str) -> Result<Vec<Scenario>> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("shared")).unwrap();
    fs::write(folder.path().join("shared/begin.yaml"), shared).unwrap();
    let path = folder.path().join("s.yaml");
    fs::write(&path, own).unwrap();
    let all = load_file(folder.path(), &path, &Contracts::of(CONTRACTS_YAML))?;
    assert_eq!(load_all(folder.path(), &Contracts::of(CONTRACTS_YAML)).unwrap().len(), all.len());
    Ok(all)
}

#[test]
fn shared_steps_come_first_with_the_parameters_of_the_matrix() {
    let all = included(SHARED, INCLUDES).unwrap();
    let ids: Vec<&str> = all.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["s[fs=ext4]", "s[fs=xfs]"]);
    assert_eq!(all[1].files["data"].on, holdfast_protocol::Place::Xfs);
    assert_eq!((all[0].steps[0].id.as_str(), all[0].steps.len(), all[0].actors.len()), ("fd", 2, 2));
}

#[test]
fn a_mistake_in_a_shared_file_names_that_file() {
    let table = [
        ("open:", "opne:", "shared/begin.yaml:6:26: steps[0].do: unknown word `opne`"),
        (
            "file: data",
            "file: dato",
            "shared/begin.yaml:6:39: steps[0].do.open: unknown file `dato`; did you mean",
        ),
        ("on: $fs", "on: $sf", "shared/begin.yaml:3:20: files.data.on: `$sf` is no parameter of the matrix"),
        (
            "mainline: ok",
            "mainlin: ok",
            "shared/begin.yaml:6:76: steps[0].expect_by: unknown contract `mainlin`",
        ),
        (
            "parameters: [fs]",
            "parameters: [how]",
            "s.yaml:5:11: include: `begin` wants a matrix parameter `how`",
        ),
        ("id: fd", "id: map", "s.yaml:8:"),
    ];
    let said = |shared: &str, own: &str| included(shared, own).expect_err(own).to_string();
    all_said(
        table.into_iter().map(|(from, to, want)| (to, want, said(&SHARED.replacen(from, to, 1), INCLUDES))),
    );
    let own = [
        ("[begin]", "[begni]", "s.yaml:5:11: include: unknown shared file `begni`; did you mean `begin`?"),
        ("[begin]", "[begin, begin]", "s.yaml:5:11: include: `begin` is included twice"),
        ("{b: {}}", "{a: {}}", "s.yaml:6:13: actors.a: the included `begin` declares `a` already"),
        ("{by: a", "{id: fd, by: a", "s.yaml:8:10: steps[0].id: `fd` is the id of an earlier step"),
    ];
    all_said(own.into_iter().map(|(from, to, want)| (to, want, said(SHARED, &INCLUDES.replacen(from, to, 1)))));
}
