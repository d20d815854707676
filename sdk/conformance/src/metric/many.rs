//! Metrics on inputs that are unlike the usual, and instances beside each other.

use easytransfer::plugin::{ComponentRef, DType, LoadedMetric, Map, Stream, Tensor};

use super::{ROWS, count, counted, figures, numbers, same_figures, saved};
use crate::checks::Checks;
use crate::inputs::{
    COUNTS, EXTREMES, Form, extreme, no_panic, shuffled, snapshot, tensor, unchanged,
};
use crate::memory;
use crate::report::{Outcome, failed};
use crate::schema::defaults;

pub fn check(component: &ComponentRef, form: Form, checks: &mut Checks<'_>) {
    let name = |what: &str| format!("{}: {what}", form.name);
    let new =
        || -> Outcome<LoadedMetric> { Ok(LoadedMetric::create(component, &defaults(component)?)?) };
    checks.check("update", &name("any number of rows, and extreme logits, have figures"), || {
        for rows in COUNTS {
            numbers(&figures(component, form, &[rows])?)?;
        }
        for size in EXTREMES {
            let mut metric = new()?;
            let mut outputs = Map::new()?;
            let logits = extreme(form, 6, size);
            outputs.put("logits", &tensor(&logits, &[6, form.width], DType::F32)?)?;
            metric.update(&outputs, &form.batch(0, 6, DType::F32)?)?;
            numbers(&metric.compute()?)?;
        }
        Ok(())
    });
    checks.check("update", &name("rows in another order are the same rows"), || {
        let mut metric = new()?;
        count(&mut metric, form, &shuffled(ROWS))?;
        let whole = figures(component, form, &[ROWS])?;
        same_figures(&whole, &metric.compute()?, "in another order")
    });
    checks.check("update", &name("inputs are left as they are"), || {
        let mut metric = new()?;
        let rows: Vec<usize> = (0..5).collect();
        let outputs = form.outputs_of(&rows, DType::F32)?;
        let batch = form.batch_of(&rows, DType::F32)?;
        let maps = [&outputs, &batch];
        let before = snapshot(&maps)?;
        metric.update(&outputs, &batch)?;
        unchanged(&before, &maps, "update")
    });
    checks.check("update", &name("no rows change no figure"), || {
        let mut metric = counted(component, form, 0, ROWS)?;
        let whole = metric.compute()?;
        let mut outputs = Map::new()?;
        outputs.put("logits", &Tensor::zeros(DType::F32, &[0, form.width])?)?;
        match metric.update(&outputs, &form.batch(0, 0, DType::F32)?) {
            Ok(()) => same_figures(&whole, &metric.compute()?, "after one of no rows"),
            // A refusal is an answer.
            result => no_panic(result),
        }
    });
    checks.check("compute", &name("figures can be asked for twice, and counting goes on"), || {
        let mut metric = counted(component, form, 0, 5)?;
        let first = metric.compute()?;
        same_figures(&first, &metric.compute()?, "when asked again")?;
        count(&mut metric, form, &(5..ROWS).collect::<Vec<_>>())?;
        let whole = figures(component, form, &[ROWS])?;
        same_figures(&whole, &metric.compute()?, "where figures were asked for between two")
    });
    checks.check("create", &name("an instance begins with nothing counted"), || {
        let alone = counted(component, form, 0, 3)?.compute()?;
        let mut first = new()?;
        let mut second = new()?;
        count(&mut first, form, &[4, 5, 6, 7, 8])?;
        count(&mut second, form, &[0, 1, 2])?;
        let what = "of an instance beside another";
        same_figures(&alone, &second.compute()?, what)?;
        drop((first, second));
        same_figures(&alone, &counted(component, form, 0, 3)?.compute()?, "of a later instance")
    });
    checks.check("state_save", &name("a state merged into nothing counted is the same"), || {
        let mut first = counted(component, form, 0, ROWS)?;
        let state = saved(&mut first)?;
        if saved(&mut first)? != state {
            return failed("a second state differs from the first");
        }
        let whole = first.compute()?;
        let mut second = new()?;
        second.merge(&mut Stream::reader(&state)?)?;
        same_figures(&whole, &second.compute()?, "of the merged")?;
        // The other way round, and nothing merged into something.
        let mut empty = new()?;
        first.merge(&mut Stream::reader(&saved(&mut empty)?)?)?;
        same_figures(&whole, &first.compute()?, "after nothing was merged")
    });
    memory::check(checks, "update", &name("instances give back what they took"), || {
        let mut metric = counted(component, form, 0, 5)?;
        metric.compute()?;
        let _ = saved(&mut metric);
        Ok(())
    });
}
