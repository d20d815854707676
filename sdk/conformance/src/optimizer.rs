//! Optimizers: a quadratic falls, frozen parameters stay, and the state survives a checkpoint to the last bit.

mod trial;

use easytransfer::plugin::{ComponentRef, DType, Stream, Tensor};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::inputs::{apart, no_panic, values};
use crate::report::{Outcome, failed, skipped};
use crate::schema::defaults;
use crate::{memory, options};
pub use trial::small_set;
use trial::{RATE, Trial};

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("step", "a quadratic falls", || {
        let mut trial = Trial::new(component)?;
        let before = trial.height()?;
        trial.steps(0, 200)?;
        let after = trial.height()?;
        if after < 0.5 * before {
            Ok(())
        } else {
            failed(format!("from {before} to {after} in 200 steps"))
        }
    });
    checks.check("step", "frozen parameters stay as they are", || {
        let mut trial = Trial::new(component)?;
        let before = values(&trial.frozen.tensor()?)?;
        trial.steps(0, 3)?;
        if values(&trial.frozen.tensor()?)? == before { Ok(()) } else { failed("they changed") }
    });
    checks.check("create", "another instance does the same", || options::repeats(component));
    state(component, checks);
    rates(component, checks);
    numbers(component, checks);
    checks.check("step_part", "a step in parts is the step", || parts(component));
    let mut trial = Trial::new(component).ok();
    let mut step = 0;
    memory::check(checks, "step", "steps need no more and more memory", || {
        let Some(trial) = &mut trial else { return skipped("it cannot be made") };
        trial.steps(step, 1)?;
        step += 1;
        trial.save().map(drop)
    });
}

/// The parameters after some steps, and what is saved of it.
pub fn effect(component: &ComponentRef, options: &str) -> Outcome<Value> {
    let mut trial = Trial::with(component, options, 5, |_| Ok(()))?;
    trial.steps(0, 4)?;
    // A step whose gradients are large shows options that clip.
    trial.gradients(1e3)?;
    trial.optimizer.step(&mut trial.params, RATE, 5)?;
    let bits: Vec<u64> = trial.all()?.into_iter().map(f64::to_bits).collect();
    Ok(json!([bits, trial.save()?]))
}

/// Steps of an instance.
pub fn later(component: &ComponentRef, options: &str) -> Outcome<options::Later> {
    let mut trial = Trial::with(component, options, 5, |_| Ok(()))?;
    trial.steps(0, 2)?;
    Ok(Box::new(move || {
        trial.steps(2, 2)?;
        let bits: Vec<u64> = trial.all()?.into_iter().map(f64::to_bits).collect();
        Ok(json!(bits))
    }))
}

fn state(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("state_save", "state saved and loaded goes on with the same bits", || {
        let mut whole = Trial::new(component)?;
        whole.steps(0, 3)?;
        let (params, state) = (whole.params.snapshot()?, whole.save()?);
        if whole.save()? != state {
            return failed("a second state differs from the first");
        }
        whole.steps(3, 3)?;
        let mut second = Trial::new(component)?;
        second.params.restore(&params)?;
        second.optimizer.load(&mut Stream::reader(&state)?)?;
        second.steps(3, 3)?;
        if whole.params.snapshot()?.as_slice() == second.params.snapshot()?.as_slice() {
            Ok(())
        } else {
            failed("the parameters differ")
        }
    });
    checks.check("state_load", "what was done before is gone once a state is loaded", || {
        let mut whole = Trial::new(component)?;
        whole.steps(0, 2)?;
        let (params, state) = (whole.params.snapshot()?, whole.save()?);
        whole.steps(2, 2)?;
        let mut second = Trial::new(component)?;
        second.steps(0, 5)?;
        second.params.restore(&params)?;
        second.optimizer.load(&mut Stream::reader(&state)?)?;
        second.steps(2, 2)?;
        match apart(&whole.all()?, &second.all()?) {
            0.0 => Ok(()),
            worst => failed(format!("parameters differ by {worst:.1e} from those of a new one")),
        }
    });
    checks.check("state_load", "a state that was cut off is refused", || {
        let mut trial = Trial::new(component)?;
        trial.steps(0, 2)?;
        let state = trial.save()?;
        if state.is_empty() {
            return skipped("it has no state");
        }
        let result = trial.optimizer.load(&mut Stream::reader(&state[..state.len() / 2])?);
        match result {
            Ok(()) => failed("half of the state was accepted"),
            result => no_panic(result),
        }
    });
    checks.check("create", "two instances are independent", || {
        let mut alone = Trial::new(component)?;
        alone.steps(0, 4)?;
        let (mut first, mut second) = (Trial::new(component)?, Trial::new(component)?);
        for step in 0..4 {
            first.steps(step, 1)?;
            second.steps(step, 1)?;
        }
        let same = apart(&alone.all()?, &first.all()?) + apart(&alone.all()?, &second.all()?);
        if same == 0.0 { Ok(()) } else { failed("beside another they do something else") }
    });
}

fn rates(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("step", "a learning rate of 0 leaves the parameters as they are", || {
        let mut trial = Trial::new(component)?;
        trial.steps(0, 2)?;
        let before = trial.all()?;
        trial.gradients(1.0)?;
        trial.optimizer.step(&mut trial.params, 0.0, 3)?;
        if trial.all()? == before { Ok(()) } else { failed("they changed") }
    });
    checks.check("step", "the learning rate counts", || {
        let mut trials = [Trial::new(component)?, Trial::new(component)?];
        for (trial, rate) in trials.iter_mut().zip([RATE, 0.5 * RATE]) {
            trial.gradients(1.0)?;
            trial.optimizer.step(&mut trial.params, rate, 1)?;
        }
        match trials[0].all()? == trials[1].all()? {
            true => failed(format!("a step with {RATE} and one with half of it are the same")),
            false => Ok(()),
        }
    });
    checks.check("step", "a parameter's own rate (lr_scale) multiplies the rate", || {
        let options = defaults(component)?;
        let plain = Trial::new(component)?;
        let start = Trial::of(&plain.moving[1])?;
        let mut moved = Vec::new();
        for scale in [1.0, 0.5, 0.0] {
            let change = |params: &[easytransfer::plugin::Param]| params[1].set_lr_scale(scale);
            let mut trial = Trial::with(component, &options, 5, change)?;
            trial.steps(0, 1)?;
            moved.push(Trial::of(&trial.moving[1])?);
        }
        if moved[2] != start {
            return failed("a parameter whose rate is 0 moved");
        }
        if moved[0] == moved[1] && moved[0] != start {
            return failed("a parameter with half the rate moved as far");
        }
        Ok(())
    });
}

fn numbers(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("step", "a step without gradients leaves finite numbers", || {
        let mut trial = Trial::new(component)?;
        trial.params.zero_grads();
        no_panic(trial.optimizer.step(&mut trial.params, RATE, 1))?;
        finite(&trial, "no gradients")
    });
    checks.check("step", "gradients of any size leave finite numbers", || {
        for scale in [0.0, 1e-20, 1e-8, 1e4, 1e10] {
            let mut trial = Trial::new(component)?;
            for step in 1..=2 {
                trial.gradients(scale)?;
                trial.optimizer.step(&mut trial.params, RATE, step)?;
                finite(&trial, &format!("gradients times {scale:e}"))?;
            }
        }
        Ok(())
    });
    checks.check("step", "parameters of any length are moved whole", || {
        for len in [1, 7, 16, 100, 1025, 5000] {
            let mut trial = Trial::with(component, &defaults(component)?, len, |_| Ok(()))?;
            let before = Trial::of(&trial.moving[1])?;
            trial.steps(0, 2)?;
            finite(&trial, &format!("a parameter of {len}"))?;
            let after = Trial::of(&trial.moving[1])?;
            if let Some(at) = (0..len).find(|at| before[*at] == after[*at]) {
                return failed(format!("element {at} of {len} did not move"));
            }
        }
        Ok(())
    });
    checks.check("step", "a parameter without a gradient leaves the others theirs", || {
        let mut trial = Trial::new(component)?;
        trial.params.zero_grads();
        let difference = trial.differences()?.remove(1);
        trial.moving[1].set_grad(&difference)?;
        let before = Trial::of(&trial.moving[1])?;
        no_panic(trial.optimizer.step(&mut trial.params, RATE, 1))?;
        finite(&trial, "one gradient")?;
        match Trial::of(&trial.moving[1])? == before {
            true => failed("the parameter with a gradient did not move"),
            false => Ok(()),
        }
    });
}

fn finite(trial: &Trial, what: &str) -> Outcome {
    match trial.all()?.iter().find(|value| !value.is_finite()) {
        None => Ok(()),
        Some(value) => failed(format!("{what}: a parameter is {value}")),
    }
}

fn parts(component: &ComponentRef) -> Outcome {
    let (mut whole, mut parts) = (Trial::new(component)?, Trial::new(component)?);
    if !parts.optimizer.has_parts() {
        return skipped("it makes whole steps only");
    }
    for step in 1..=3 {
        whole.steps(step - 1, 1)?;
        parts.gradients(1.0)?;
        let len = parts.params.arena_len();
        // Between the two parameters, where every kind allows it.
        let middle = 12.min(len);
        for part in [0..middle, middle..len] {
            if let Err(error) = parts.optimizer.step_part(&mut parts.params, RATE, step, part) {
                no_panic::<()>(Err(error.clone()))?;
                return skipped(format!("it refuses such parts: {error}"));
            }
        }
    }
    match apart(&whole.all()?, &parts.all()?) {
        worst if worst <= 1e-6 => Ok(()),
        worst => failed(format!("parameters differ by {worst:.1e}")),
    }
}

/// Used by strategies' trials as well: a step against the gradient.
pub fn plain_step(params: &mut easytransfer::plugin::Params, rate: f64) -> Outcome {
    for param in params.iter() {
        let Some(gradient) = param.grad()? else { continue };
        let value: Tensor = param.tensor()?.detach()?;
        param.assign(&value.sub(&gradient.affine(rate, 0.0)?)?.cast(DType::F32)?)?;
    }
    Ok(())
}
