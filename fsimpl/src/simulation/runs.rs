//! The tests: each a scenario, run by many seeds.

use libtest_mimic::{Failed, Trial};

use super::lot::Lot;
use super::{parts, schedule, storm};

/// Names the one seed to run.
const SEED: &str = "PREPUB_SIMULATION_SEED";
/// So many times the usual number of seeds; others than usual.
const RUNS: &str = "PREPUB_SIMULATION_RUNS";

/// Its name, what runs, and by how many seeds in a usual test run.
type Scenario = (&'static str, fn(Lot), u64);

/// Some seconds' worth.
const SCENARIOS: &[Scenario] = &[
    ("storm", storm::run, 50),
    ("sealer", parts::sealer, 300),
    ("writers_and_a_snapshot", parts::writers_and_a_snapshot, 300),
    (
        "new_files_and_snapshots",
        parts::new_files_and_snapshots,
        200,
    ),
    ("aside", parts::aside, 300),
];

/// All of them.
pub(crate) fn tests() -> Vec<Trial> {
    let scenario = |&(name, what, count): &Scenario| {
        Trial::test(format!("simulation::{name}"), move || {
            seeds(name, what, count)
        })
    };
    let mut tests: Vec<Trial> = SCENARIOS.iter().map(scenario).collect();
    tests.push(Trial::test(
        "simulation::a_seed_is_a_schedule",
        a_seed_is_a_schedule,
    ));
    tests
}

fn number(variable: &str) -> Result<Option<u64>, Failed> {
    match std::env::var(variable) {
        Ok(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{variable}={text} is not a number").into()),
        },
        Err(_) => Ok(None),
    }
}

fn seeds(name: &str, what: fn(Lot), usual: u64) -> Result<(), Failed> {
    let seeds = match (number(SEED)?, number(RUNS)?) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(times)) => usual..usual + usual * times,
        (None, None) => 0..usual,
    };
    for seed in seeds {
        if schedule::run(seed, what).is_err() {
            return Err(format!(
                "{name} fails by seed {seed}, for the reason above; {SEED}={seed} repeats it"
            )
            .into());
        }
    }
    Ok(())
}

fn a_seed_is_a_schedule() -> Result<(), Failed> {
    for (name, what, _) in SCENARIOS {
        for seed in 0..4 {
            let trace = || schedule::run(seed, *what).map_err(|_| format!("{name} fails"));
            if trace()? != trace()? {
                return Err(format!("{name}: two schedules by the seed {seed}").into());
            }
        }
    }
    Ok(())
}
