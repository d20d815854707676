//! Strategies: their hooks exist and do the same whenever a fit is made again, or goes on from a checkpoint.

mod session;

use easytransfer::plugin::{ComponentRef, LoadedStrategy, Phases, Stream};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::no_panic;
use crate::memory;
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema::defaults;
use session::{Fit, Kept, STEPS};

const HOOKS: [(Phases, &str); 7] = [
    (Phases::SETUP, "on_setup"),
    (Phases::BATCH, "on_batch"),
    (Phases::OUTPUTS, "on_outputs"),
    (Phases::COMBINE, "combine"),
    (Phases::GRADIENTS, "on_gradients"),
    (Phases::EPOCH, "on_epoch"),
    (Phases::FIT, "fit"),
];

/// The step after which a checkpoint is tried; in the middle of an epoch.
const MIDDLE: u64 = 3;

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("phases", "names hooks that exist", || {
        let phases = new(component)?.phases();
        let known = HOOKS.iter().fold(Phases::default(), |all, (phase, _)| all | *phase);
        if !known.has(phases) {
            return failed(format!("found {phases:?}"));
        }
        for (phase, slot) in HOOKS {
            if phases.has(phase) && !component.has_slot(slot) {
                return failed(format!("the phases name {slot}, and the slot {slot} is NULL"));
            }
        }
        let (save, load) = (component.has_slot("state_save"), component.has_slot("state_load"));
        match save == load {
            true => Ok(()),
            false => failed(format!(
                "{} is NULL, and the other of the two is not",
                if save { "state_load" } else { "state_save" }
            )),
        }
    });
    checks.check("columns", "columns have roles and names", || {
        let columns = new(component)?.columns()?;
        match columns.iter().find(|column| column.role.is_empty() || column.names.is_empty()) {
            Some(column) => failed(format!("found {column:?}")),
            None => Ok(()),
        }
    });
    checks.check("state_save", "state saved and loaded is the same state", || {
        let mut first = new(component)?;
        let state = save(&mut first)?;
        let mut second = new(component)?;
        load(&mut second, &state)?;
        if save(&mut second)? == state { Ok(()) } else { failed("the second state differs") }
    });
    let mut can_run = false;
    checks.check("on_setup", "takes part in a small fit", || {
        let mut strategy = new(component)?;
        let mut fit = Fit::new()?;
        if let Some(refusal) = fit.refused_setup(&mut strategy)? {
            return skipped(format!("it needs more than a small fit: {refusal}"));
        }
        let done = fit.run(&mut strategy, STEPS);
        done?;
        can_run = true;
        match fit.strange_calls {
            0 => Ok(()),
            count => failed(format!("{count} calls of the session came from another thread")),
        }
    });
    if !can_run {
        return;
    }
    checks.check("create", "another fit with the same options is the same", || {
        let options = defaults(component)?;
        same_trace(&trace(component, &options)?, &trace(component, &options)?, "of another fit")
    });
    checks.check("state_save", "a fit that goes on from a checkpoint is the same", || {
        resumed(component)
    });
    checks.check("state_load", "a state that was cut off is refused", || {
        let mut strategy = new(component)?;
        let mut fit = Fit::new()?;
        fit.set_up(&mut strategy)?;
        fit.run(&mut strategy, MIDDLE)?;
        let state = save(&mut strategy)?;
        if state.is_empty() {
            return skipped("it has no state");
        }
        let mut second = new(component)?;
        match second.load(&mut Stream::reader(&state[..state.len() - 1])?) {
            Ok(()) => failed("it was accepted"),
            result => no_panic(result),
        }
    });
    let made = || -> Outcome<_> {
        let (mut strategy, mut made) = (new(component)?, Fit::new()?);
        made.set_up(&mut strategy)?;
        Ok((strategy, made, 0))
    };
    let mut fit = made().ok();
    memory::check(checks, "on_batch", "steps need no more and more memory", || {
        let Some((strategy, made, step)) = &mut fit else { return skipped("it cannot be made") };
        if strategy.phases().has(Phases::FIT) {
            return skipped("it drives the fit");
        }
        *step += 1;
        made.trace.clear();
        made.run(strategy, *step)
    });
}

/// Everything that the strategy does in a fit.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let strategy = LoadedStrategy::create(component, options)?;
    let first = json!([strategy.phases().0, strategy.columns()?]);
    match trace(component, options) {
        Ok(trace) => Ok(json!([first, trace])),
        Err(Stop::Failed(text) | Stop::Skipped(text)) => Ok(json!([first, text])),
    }
}

/// A fit with an instance.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<crate::options::Later> {
    let mut strategy = LoadedStrategy::create(component, options)?;
    Ok(Box::new(move || {
        let mut fit = Fit::new()?;
        match fit.set_up(&mut strategy).and_then(|()| fit.run(&mut strategy, MIDDLE)) {
            Ok(()) => Ok(Value::Array(fit.trace)),
            Err(Stop::Failed(text) | Stop::Skipped(text)) => Ok(json!(text)),
        }
    }))
}

fn new(component: &ComponentRef) -> Outcome<LoadedStrategy> {
    Ok(LoadedStrategy::create(component, &defaults(component)?)?)
}

fn trace(component: &ComponentRef, options: &str) -> Outcome<Vec<Value>> {
    let mut strategy = LoadedStrategy::create(component, options)?;
    let mut fit = Fit::new()?;
    fit.set_up(&mut strategy)?;
    fit.run(&mut strategy, STEPS)?;
    Ok(fit.trace)
}

/// A fit to the end, and one that begins again in the middle with the state that was saved there.
fn resumed(component: &ComponentRef) -> Outcome {
    let mut strategy = new(component)?;
    let mut fit = Fit::new()?;
    fit.set_up(&mut strategy)?;
    fit.run(&mut strategy, MIDDLE)?;
    let saved = fit.saved.remove(&MIDDLE);
    let (kept, state): (Kept, Vec<u8>) = match saved {
        Some(saved) => saved,
        None => (fit.kept()?, save(&mut strategy)?),
    };
    let begun = fit.trace.len();
    if strategy.phases().has(Phases::FIT) {
        // The fit ended there; a whole one is another.
        (strategy, fit) = (new(component)?, Fit::new()?);
        fit.set_up(&mut strategy)?;
    }
    fit.run(&mut strategy, STEPS)?;
    let mut second = new(component)?;
    let mut other = Fit::new()?;
    other.set_up(&mut second)?;
    load(&mut second, &state)?;
    let set_up = other.trace.len();
    other.go_on_from(&kept)?;
    other.run(&mut second, STEPS)?;
    same_trace(&fit.trace[begun..], &other.trace[set_up..], "after the checkpoint")
}

fn same_trace(expected: &[Value], found: &[Value], what: &str) -> Outcome {
    let differs = expected.iter().zip(found).position(|(a, b)| a != b);
    let Some(at) =
        differs.or((expected.len() != found.len()).then_some(expected.len().min(found.len())))
    else {
        return Ok(());
    };
    let text = |all: &[Value]| {
        let all = all.get(at).map_or_else(|| "nothing".to_owned(), Value::to_string);
        all.chars().take(60).collect::<String>()
    };
    let before = expected[..at].iter().rev().find_map(|entry| entry.get("step"));
    let step = before.and_then(Value::as_u64).map_or(0, |step| step + 1);
    failed(format!("around step {step}: expected {}, found {} {what}", text(expected), text(found)))
}

fn save(strategy: &mut LoadedStrategy) -> Outcome<Vec<u8>> {
    let mut stream = Stream::writer()?;
    strategy.save(&mut stream)?;
    Ok(stream.bytes()?.as_slice().to_vec())
}

fn load(strategy: &mut LoadedStrategy, state: &[u8]) -> Outcome {
    Ok(strategy.load(&mut Stream::reader(state)?)?)
}
