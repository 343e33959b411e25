// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measurements, as ratios within one run: absolute times drift between machines and hours.

mod boot;
mod kernel;
mod machines;
mod peers;

use std::time::Duration;

pub use boot::{Boots, boots};
pub use kernel::{Costs, Figure, Much, Side, costs};
pub use machines::{Amount, Machines, SHORT, machines};
pub use peers::{Peers, peers};

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
