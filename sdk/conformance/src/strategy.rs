//! Strategies: they can be made, name hooks that exist, and keep their state. Their hooks need a run, so they are not
//! called here.

use easytransfer::plugin::{ComponentRef, LoadedStrategy, Phases, Stream};

use crate::defaults;
use crate::report::{Checks, Outcome, failed};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("names hooks that exist", || {
        let strategy = LoadedStrategy::create(component, &defaults(component)?)?;
        let known = Phases::SETUP
            | Phases::BATCH
            | Phases::OUTPUTS
            | Phases::COMBINE
            | Phases::GRADIENTS
            | Phases::EPOCH
            | Phases::FIT;
        let phases = strategy.phases();
        if known.has(phases) { Ok(()) } else { failed(format!("found {phases:?}")) }
    });
    checks.check("state saved and loaded is the same state", || {
        let mut first = LoadedStrategy::create(component, &defaults(component)?)?;
        let state = save(&mut first)?;
        let mut second = LoadedStrategy::create(component, &defaults(component)?)?;
        second.load(&mut Stream::reader(&state)?)?;
        if save(&mut second)? == state { Ok(()) } else { failed("the second state differs") }
    });
}

fn save(strategy: &mut LoadedStrategy) -> Outcome<Vec<u8>> {
    let mut stream = Stream::writer()?;
    strategy.save(&mut stream)?;
    Ok(stream.bytes()?.as_slice().to_vec())
}
