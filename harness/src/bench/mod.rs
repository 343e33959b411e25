// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements, as ratios within one run: absolute times drift between machines and hours.

mod boot;
mod kernel;
mod machines;
mod peers;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::home::Home;
use crate::kernel::Built;
use crate::machine::saved::{self, Found};
use crate::machine::{Machine, Saved};
use crate::run::Interrupt;
use crate::scratch::{self, Scratch};

pub use boot::{Boots, boots};
pub use kernel::{Costs, Figure, Much, Side, costs};
pub use machines::{Amount, Machines, SHORT, machines};
pub use peers::{Peers, peers};

/// A machine saved into a folder that holds none.
async fn save_anew(
    home: &Home,
    into: &Scratch,
    machine: &Machine,
    built: &Built,
    interrupt: &Interrupt,
) -> Result<Saved> {
    let home = Home { cache: into.path().to_owned(), ..home.clone() };
    let site = match saved::find(&home, machine, |name| scratch::lock(&home.cache.join(name)))? {
        Found::None(site) => site,
        found => bail!("a machine was saved where nobody saved one: {found:?}"),
    };
    saved::make(&home, site, machine, &built.manifest.requests, &built.manifest.providers(), interrupt.wish())
        .await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => 0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2,
    }
}

fn range(values: &[u64]) -> String {
    format!("{} to {}", values.iter().min().unwrap_or(&0), values.iter().max().unwrap_or(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&[3, 1, 2]), 2);
        assert_eq!(median(&[4, 1, 3, 2]), 2);
        assert_eq!(median(&[]), 0);
    }
}
