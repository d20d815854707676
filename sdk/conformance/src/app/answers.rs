//! Answers of an app: each belongs to its row, whatever rows are beside it and in which order; the same from every
//! thread, and from an app that was made again from the state.

use easytransfer::plugin::{
    Asked, Call, ComponentRef, LoadedApp, Map, Record, Rng, Row, Tensor, no_grad,
};
use serde_json::Value;

use super::net::FakeNet;
use super::records::{Recipe, TEXTS, learned, tokenizer};
use crate::checks::Checks;
use crate::inputs::{no_panic, shuffled, snapshot, unchanged};
use crate::memory;
use crate::report::{Outcome, failed, skipped};
use crate::schema::defaults;

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    checks.check("decode", "an answer is of its row, in any order and number of rows", || {
        order(component)
    });
    checks.check("decode", "large outputs of the model have answers, too", || large(component));
    checks.check("forward", "inputs are left as they are", || {
        let (app, recipe, net) = learned(component)?;
        let mut net = net?;
        let rows = rows(&app, &recipe)?;
        let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
        let before = snapshot(&[&batch])?;
        let outputs = net.outputs(&app, &batch)?;
        unchanged(&before, &[&batch], "forward")?;
        let both = [&batch, &outputs];
        let before = snapshot(&both)?;
        app.decode(&batch, &outputs)?;
        unchanged(&before, &both, "decode")
    });
    checks.check("forward", "calls of `net` come from the thread of `forward`", || {
        let (app, recipe, net) = learned(component)?;
        let mut net = net?;
        let rows = rows(&app, &recipe)?;
        net.parts(&app, &rows.iter().collect::<Vec<_>>())?;
        match net.strange_calls {
            0 => Ok(()),
            count => failed(format!("{count} calls came from another thread")),
        }
    });
    checks.check("forward", "a call of training is answered, and repeats", || training(component));
    checks.check("features", "the same record has the same features", || {
        let (app, recipe, _) = learned(component)?;
        let first = features(&app, &recipe, 2)?;
        for at in [1, 3] {
            features(&app, &recipe, at)?;
        }
        same_rows(&first, &features(&app, &recipe, 2)?, "a second time")
    });
    checks
        .check_in_threads("features", "other threads get the same features", || threads(component));
    checks.check("state", "an app made from the state answers the same", || state(component));
    checks.check("decode", "no rows have no answers", || empty(component));
    let mut made =
        learned(component).ok().and_then(|(app, recipe, net)| Some((app, recipe, net.ok()?)));
    memory::check(checks, "forward", "calls need no more and more memory", || {
        let Some((app, recipe, net)) = &mut made else { return skipped("it cannot be made") };
        let rows = features(app, recipe, 0)?;
        net.parts(app, &rows.iter().collect::<Vec<_>>())?;
        app.info()?;
        app.state()?;
        Ok(())
    });
    drop(made);
}

fn features(app: &LoadedApp, recipe: &Recipe, at: usize) -> Outcome<Vec<Row>> {
    let record = recipe.record(at, false);
    Ok(app.features(&mut Asked::new(at as u64), tokenizer()?, &record)?)
}

/// One row of every record.
fn rows(app: &LoadedApp, recipe: &Recipe) -> Outcome<Vec<Row>> {
    let mut all = Vec::new();
    for at in 0..TEXTS.len() {
        all.extend(features(app, recipe, at)?);
    }
    Ok(all)
}

fn order(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let mut net = net?;
    let rows = rows(&app, &recipe)?;
    let plain: Vec<&Row> = rows.iter().collect();
    let whole = net.parts(&app, &plain)?;
    let mixed = shuffled(rows.len());
    let again = net.parts(&app, &mixed.iter().map(|at| plain[*at]).collect::<Vec<_>>())?;
    if again.len() != rows.len() {
        return failed(format!("expected {} answers, found {}", rows.len(), again.len()));
    }
    for (place, at) in mixed.iter().enumerate() {
        same(&whole[*at], &again[place], "in another order")?;
    }
    for at in [0, rows.len() - 1] {
        let alone = net.parts(&app, &[plain[at]])?;
        let Some(alone) = alone.first() else { return failed("a row alone has no answer") };
        same(&whole[at], alone, "alone")?;
    }
    // Many rows, each of them several times.
    let many: Vec<&Row> = (0..101).map(|at| plain[at % plain.len()]).collect();
    let parts = net.parts(&app, &many)?;
    if parts.len() != many.len() {
        return failed(format!("expected {} answers, found {}", many.len(), parts.len()));
    }
    for (place, part) in parts.iter().enumerate() {
        same(&whole[place % plain.len()], part, "among 101 rows")?;
    }
    Ok(())
}

/// Outputs of a call with a generator of random numbers, which repeat from the same state of it.
fn training(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let mut net = net?;
    let mut rows = Vec::new();
    for at in 0..3 {
        let record = recipe.record(at, true);
        rows.extend(app.features(&mut Asked::new(at as u64), tokenizer()?, &record)?);
    }
    let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
    let want = app.info()?.want;
    let mut call = || -> Outcome<_> {
        let (rng, mut outputs) = (Rng::new(9, 1)?, Map::new()?);
        app.forward(&Call::training(want, &rng), &mut net, &batch, &mut outputs)?;
        snapshot(&[&outputs])
    };
    if call()? == call()? { Ok(()) } else { failed("the outputs differ") }
}

/// Answers where a softmax without care has none: what is a number of usual outputs is one of large outputs.
fn large(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let mut net = net?;
    let rows = rows(&app, &recipe)?;
    let rows: Vec<&Row> = rows.iter().collect();
    let usual = net.parts(&app, &rows)?;
    for scale in [0.0, 100.0, 1e4] {
        net.scale = scale;
        for (part, usual) in net.parts(&app, &rows)?.iter().zip(&usual) {
            let lost = usual.iter().find(|(key, value)| {
                value.is_number() && part.get(*key).is_some_and(|value| !value.is_number())
            });
            if let Some((key, _)) = lost {
                return failed(format!(
                    "outputs times {scale}: {key:?} is {}, expected a number",
                    part[key.as_str()]
                ));
            }
        }
    }
    Ok(())
}

fn same(expected: &Record, found: &Record, how: &str) -> Outcome {
    if is_close(&Value::Object(expected.clone()), &Value::Object(found.clone())) {
        return Ok(());
    }
    let text = |record: &Record| {
        Value::Object(record.clone()).to_string().chars().take(100).collect::<String>()
    };
    failed(format!("{how} a row is answered {}, expected {}", text(found), text(expected)))
}

/// Equal but for what the order of sums does to a number.
fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
            (a - b).abs() <= 1e-4 * (1.0 + a.abs())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_close(a, b)))
        }
        (a, b) => a == b,
    }
}

fn same_rows(a: &[Row], b: &[Row], what: &str) -> Outcome {
    let of = |rows: &[Row]| -> Outcome<_> {
        let batch = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
        snapshot(&[&batch])
    };
    match of(a)? == of(b)? {
        true => Ok(()),
        false => failed(format!("they differ {what}")),
    }
}

fn threads(component: &ComponentRef) -> Outcome {
    let (app, recipe, _) = learned(component)?;
    let tokenizer = tokenizer()?;
    let make = |at: usize| {
        let record = recipe.record(at, false);
        app.features(&mut Asked::new(at as u64), tokenizer, &record)
    };
    let expected = (0..4).map(make).collect::<Result<Vec<_>, _>>()?;
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|at| {
                let make = &make;
                scope.spawn(move || {
                    (0..20).map(|turn| make((at + turn) % 4)).collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    for (at, result) in found.into_iter().enumerate() {
        let Ok(rows) = result else { return failed("a thread panicked") };
        for (turn, rows) in rows?.iter().enumerate() {
            same_rows(&expected[(at + turn) % 4], rows, "when four threads ask at once")?;
        }
    }
    Ok(())
}

fn state(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let state = app.state()?.to_string();
    let mut again = LoadedApp::create(component, &defaults(component)?, &state)?;
    let mut net = net?;
    let mut other = FakeNet::new(&mut again, tokenizer()?)?;
    let (before, after) = (rows(&app, &recipe)?, rows(&again, &recipe)?);
    same_rows(&before, &after, "from those of the app whose state it is")?;
    let whole = net.parts(&app, &before.iter().collect::<Vec<_>>())?;
    let found = other.parts(&again, &after.iter().collect::<Vec<_>>())?;
    whole.iter().zip(&found).try_for_each(|(a, b)| same(a, b, "by an app made from the state"))
}

/// A batch of no rows is refused, or has no answers.
fn empty(component: &ComponentRef) -> Outcome {
    let (app, recipe, net) = learned(component)?;
    let mut net = net?;
    let rows = rows(&app, &recipe)?;
    let full = Map::from_rows(&rows.iter().collect::<Vec<_>>())?;
    let mut batch = Map::new()?;
    for name in full.names() {
        let of = full.get(&name)?;
        if name == "starts" || name.ends_with("/starts") {
            batch.put(&name, &Tensor::from_slice(&[0i64], &[1])?)?;
        } else {
            batch.put(&name, &of.narrow(0, 0, 0)?.contiguous()?)?;
        }
    }
    let mut outputs = Map::new()?;
    let call = Call::inference(app.info()?.want);
    let done = no_grad(|| app.forward(&call, &mut net, &batch, &mut outputs));
    if done.is_err() {
        return no_panic(done);
    }
    match app.decode(&batch, &outputs) {
        Ok(parts) if !parts.is_empty() => {
            failed(format!("expected no answers, found {}", parts.len()))
        }
        result => no_panic(result),
    }
}
