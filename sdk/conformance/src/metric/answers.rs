//! Metrics that count answers of an app beside the records that they belong to.

use easytransfer::plugin::{ComponentRef, LoadedMetric, Record, Stream};
use serde_json::{Value, json};

use super::{Figures, better, numbers, same_figures, saved};
use crate::checks::Checks;
use crate::inputs::{is_fault, no_panic, shuffled};
use crate::report::{Outcome, Stop, failed, skipped};
use crate::schema::defaults;

const COUNT: usize = 7;

type Pairs = (Vec<Record>, Vec<Record>);

/// Answers and records of usual apps, right in part.
fn forms() -> Vec<(&'static str, Pairs)> {
    let words = ["red", "green", "blue"];
    let record = |value: Value| value.as_object().cloned().unwrap_or_default();
    let make = |answer: &dyn Fn(usize) -> Value, target: &dyn Fn(usize) -> Value| {
        let answers = (0..COUNT).map(|at| record(answer(at))).collect();
        (answers, (0..COUNT).map(|at| record(target(at))).collect())
    };
    let score = |at: usize| 0.3 + 0.1 * (at % 6) as f64;
    let text = |at: usize| format!("the {} one", words[at % 3]);
    let found = |at: usize| format!("the {} one", words[at * 2 % 3]);
    vec![
        (
            "classes",
            make(
                &|at| json!({"label": words[at * 2 % 3], "score": score(at)}),
                &|at| json!({"text": text(at), "label": words[at % 3]}),
            ),
        ),
        (
            "numbers",
            make(
                &|at| json!({"value": score(at), "score": score(at)}),
                &|at| json!({"text": text(at), "text_pair": found(at), "label": at as f64 / 3.0}),
            ),
        ),
        (
            "texts",
            make(
                &|at| json!({"text": found(at), "answer": found(at), "score": score(at)}),
                &|at| {
                    json!({"text": text(at), "target": text(at), "question": "which", "context": text(at),
                        "answers": {"text": [text(at)], "answer_start": [0]}})
                },
            ),
        ),
    ]
}

pub fn check(component: &ComponentRef, checks: &mut Checks<'_>) {
    let mut accepted = Vec::new();
    checks.check("answers", "takes answers and records of a usual form", || {
        let mut refusal = String::new();
        for (name, pairs) in forms() {
            match counted(component, &defaults(component)?, &pairs, &all()) {
                Ok(metric) => accepted.push((name, pairs, metric.compute()?)),
                Err(Stop::Failed(text)) if is_fault(&text) => return failed(text),
                Err(Stop::Failed(text) | Stop::Skipped(text)) => refusal = text,
            }
        }
        match accepted.len() {
            0 => skipped(format!("its answers are others: {refusal}")),
            _ => Ok(()),
        }
    });
    for (form, pairs, whole) in &accepted {
        let name = |what: &str| format!("{form}: {what}");
        checks.check("compute", &name("figures are numbers, or arrays of numbers"), || {
            numbers(whole)?;
            better(component, whole)
        });
        checks.check("answers", &name("several batches, in another order, count as one"), || {
            let mut metric = new(component)?;
            for part in shuffled(COUNT).chunks(3) {
                count(&mut metric, pairs, part)?;
            }
            same_figures(whole, &metric.compute()?, "in three")?;
            same_figures(whole, &metric.compute()?, "when asked again")
        });
        checks.check("state_merge", &name("parts counted apart and merged are the whole"), || {
            let options = defaults(component)?;
            let mut first = counted(component, &options, pairs, &[0, 1, 2])?;
            let state = saved(&mut counted(component, &options, pairs, &[3, 4, 5, 6])?)?;
            first.merge(&mut Stream::reader(&state)?)?;
            same_figures(whole, &first.compute()?, "of two that were merged")
        });
        checks.check("answers", &name("no answers are no panic"), || {
            no_panic(new(component)?.answers(&[], &[]))
        });
    }
    checks.check("answers", "answers without their parts are no panic", || {
        let empty = vec![Record::new(); 2];
        no_panic(new(component)?.answers(&empty, &empty))
    });
}

fn all() -> Vec<usize> {
    (0..COUNT).collect()
}

fn new(component: &ComponentRef) -> Outcome<LoadedMetric> {
    Ok(LoadedMetric::create(component, &defaults(component)?)?)
}

fn count(metric: &mut LoadedMetric, (answers, records): &Pairs, which: &[usize]) -> Outcome {
    let pick = |all: &[Record]| which.iter().map(|at| all[*at].clone()).collect::<Vec<_>>();
    Ok(metric.answers(&pick(answers), &pick(records))?)
}

fn counted(
    component: &ComponentRef,
    options: &str,
    pairs: &Pairs,
    which: &[usize],
) -> Outcome<LoadedMetric> {
    let mut metric = LoadedMetric::create(component, options)?;
    count(&mut metric, pairs, which)?;
    Ok(metric)
}

/// The figures of every form, for those that count answers.
pub fn figures(component: &ComponentRef, options: &str) -> Vec<Option<Figures>> {
    if !component.has_slot("answers") {
        return Vec::new();
    }
    let of = |(_, pairs): (&str, Pairs)| {
        counted(component, options, &pairs, &all()).ok()?.compute().ok()
    };
    forms().into_iter().map(of).collect()
}
