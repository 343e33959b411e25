// SPDX-License-Identifier: MIT OR Apache-2.0
//! In which order modules are loaded: what a module uses before it, what it likes to have before it if that
//! can be.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::modinfo::Info;

/// What there is under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A module.
    Module(Info),
    /// It is in the kernel's image.
    BuiltIn,
    /// Another name of these.
    Alias(Vec<String>),
    /// Nothing.
    Nothing,
}

/// A module that is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) name: String,
    /// Nobody misses it where it does not load: it is only liked.
    pub(super) if_possible: bool,
}

/// The modules that are loaded for those that are wanted, each behind all that it uses.
///
/// # Errors
/// When one is missing, modules use each other in a circle, or looking one up fails.
pub(super) fn order(wanted: &[String], look: &mut dyn FnMut(&str) -> Result<Found>) -> Result<Vec<Loaded>> {
    let mut walk = Walk { look, order: Vec::new(), done: BTreeMap::new(), path: Vec::new() };
    for name in wanted {
        walk.visit(name, false)?;
    }
    Ok(walk.order)
}

struct Walk<'a> {
    look: &'a mut dyn FnMut(&str) -> Result<Found>,
    order: Vec<Loaded>,
    /// Where in the order, of those that are in it.
    done: BTreeMap<String, usize>,
    /// From a wanted one to the one that is looked at.
    path: Vec<String>,
}

impl Walk<'_> {
    /// Puts a module with all that it takes into the order; false when it is only liked and cannot be had.
    fn visit(&mut self, name: &str, liked: bool) -> Result<bool> {
        if let Some(&at) = self.done.get(name)
            && (liked || !self.order[at].if_possible)
        {
            return Ok(true);
        }
        if let Some(at) = self.path.iter().position(|one| one == name) {
            // Who is only liked cannot come before the one that likes it and behind it.
            if liked {
                return Ok(false);
            }
            let names: Vec<&str> = self.path[at..].iter().map(String::as_str).chain([name]).collect();
            bail!("modules use each other in a circle: {}", names.join(", "));
        }
        let info = match (self.look)(name)? {
            Found::BuiltIn => return Ok(true),
            Found::Alias(names) => {
                let mut any = false;
                for name in names {
                    any |= self.visit(&name, liked)?;
                }
                return Ok(any);
            }
            Found::Nothing if liked => return Ok(false),
            Found::Nothing => match self.path.last() {
                Some(user) => bail!("there is no module {name}, which {user} uses"),
                None => bail!("there is no module {name}"),
            },
            Found::Module(info) => info,
        };
        self.path.push(name.to_owned());
        for name in &info.pre {
            self.visit(name, true)?;
        }
        let mut has_all = true;
        for name in &info.depends {
            has_all &= self.visit(name, liked)?;
        }
        if has_all {
            match self.done.get(name) {
                // Only liked so far, and now somebody uses it.
                Some(&at) => self.order[at].if_possible = false,
                None => {
                    self.done.insert(name.to_owned(), self.order.len());
                    self.order.push(Loaded { name: name.to_owned(), if_possible: liked });
                }
            }
        }
        for name in &info.post {
            self.visit(name, true)?;
        }
        self.path.pop();
        Ok(has_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name: what it uses < what it likes before > behind`; `name = alias of`; `name !` is built in.
    fn of(described: &str, wanted: &[&str]) -> Result<String> {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut all: BTreeMap<String, Found> = BTreeMap::new();
        for line in described.lines().map(str::trim) {
            if let Some(name) = line.strip_suffix(" !") {
                all.insert(name.to_owned(), Found::BuiltIn);
            } else if let Some((name, of)) = line.split_once(" = ") {
                all.insert(name.to_owned(), Found::Alias(words(of)));
            } else if let Some((name, rest)) = line.split_once(':') {
                let (rest, post) = rest.split_once('>').unwrap_or((rest, ""));
                let (depends, pre) = rest.split_once('<').unwrap_or((rest, ""));
                let info =
                    Info { release: "6".into(), depends: words(depends), pre: words(pre), post: words(post) };
                all.insert(name.to_owned(), Found::Module(info));
            }
        }
        let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        let order = order(&wanted, &mut |name| Ok(all.get(name).cloned().unwrap_or(Found::Nothing)))?;
        let shown = |one: &Loaded| format!("{}{}", one.name, if one.if_possible { "?" } else { "" });
        Ok(order.iter().map(shown).collect::<Vec<_>>().join(" "))
    }

    fn check(described: &str, wanted: &[&str], expect: &str) {
        assert_eq!(of(described, wanted).unwrap(), expect, "{described}");
    }

    #[test]
    fn what_a_module_uses_comes_before_it_and_once() {
        let nd = "nfit: libnvdimm\nnd_pmem: nd_btt libnvdimm\nnd_btt: libnvdimm\nlibnvdimm:";
        check(nd, &["nfit", "nd_pmem"], "libnvdimm nfit nd_btt nd_pmem");
        check(nd, &["nd_pmem", "nfit"], "libnvdimm nd_btt nd_pmem nfit");
        check("a: b c\nb: d\nc: d\nd:", &["a", "a"], "d b c a");
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        check("ext4: jbd2 mbcache\njbd2: crc\nmbcache !\ncrc !", &["ext4", "mbcache"], "jbd2 ext4");
    }

    #[test]
    fn what_a_module_likes_comes_before_it_and_nobody_misses_it() {
        check("x: < crc32c\ncrc32c:", &["x"], "crc32c? x");
        check("x: < crc32c", &["x"], "x");
        check("x: < crc32c\ncrc32c = generic intel\ngeneric:\nintel:", &["x"], "generic? intel? x");
        check("x: < fast\nfast: gone", &["x"], "x");
        check("x: > late\nlate: x", &["x"], "x late?");
        // Somebody uses what another one only likes.
        check("x: < c\ny: c\nc: d\nd:", &["x", "y"], "d c x y");
    }

    #[test]
    fn what_is_missing_and_circles_are_errors() {
        let fails = |described: &str, wanted: &[&str], expect: &str| {
            assert_eq!(of(described, wanted).unwrap_err().to_string(), expect);
        };
        fails("a: b", &["a"], "there is no module b, which a uses");
        fails("a:", &["b"], "there is no module b");
        fails("a: b\nb: c\nc: b", &["a"], "modules use each other in a circle: b, c, b");
        // To like each other is no circle that anybody minds.
        check("a: < b\nb: a", &["a"], "a");
        check("a: < b\nb: < a", &["a"], "b? a");
    }
}
