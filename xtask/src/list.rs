// SPDX-License-Identifier: MIT OR Apache-2.0
//! `list`: what there is to run and to judge by; kernels are listed by `kernel list`.

use anyhow::Result;
use clap::Args;
use holdfast::contract::{Contract, PINS_BALANCED};
use holdfast::home::Home;
use holdfast::outcome::Exit;
use holdfast::plan::select;
use holdfast::scenario::Scenario;

use crate::choice::catalogue;

/// Show cases or contracts
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only these cases: a path, a glob, clause:CONTRACT/CLAUSE
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    /// The contracts, their clauses, and how many cases prove each
    #[arg(long, conflicts_with = "cases")]
    contracts: bool,
}

/// Prints a list.
pub(crate) fn main(list: &List, home: &Home) -> Result<Exit> {
    let (contracts, scenarios) = catalogue(home)?;
    if list.contracts {
        for name in contracts.names() {
            show_contract(name, contracts.find(name)?, &scenarios);
        }
    } else {
        for scenario in select(&scenarios, &contracts, &list.cases)? {
            outln!("{:44} {}", scenario.id, scenario.about);
        }
    }
    Ok(Exit::AsExpected)
}

fn show_contract(name: &str, contract: &Contract, scenarios: &[Scenario]) {
    outln!("{name}: {}", contract.about);
    for (clause, promise) in &contract.clauses {
        let proofs = scenarios.iter().filter(|scenario| {
            scenario.contracts.iter().any(|one| one == name)
                && scenario.steps.iter().any(|step| step.proves.contains(clause))
        });
        let by = match proofs.count() {
            // The standing oracles prove this one after every case.
            0 if clause == PINS_BALANCED => "every case".to_owned(),
            count => format!("{count} cases"),
        };
        outln!("  {clause:20} {promise} [{by}]");
    }
}
