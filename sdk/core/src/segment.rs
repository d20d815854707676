//! Gradient checkpointing: a segment of a model that keeps its inputs only, and runs again in the backward pass.
//!
//! Chen et al. (2016), "Training Deep Nets with Sublinear Memory Cost". The first run goes the way of recorded
//! operations, so that its values have the same bits, but nothing is kept of it ([`tape::dropping`]). The backward
//! pass runs the segment once more with the random numbers of the first run and the edges of the original inputs.
//! What it records has later numbers than all that is still to be visited, so the pass visits it next, in the order
//! that it would have had in the first run: sums of gradients are formed in the same order and have the same bits.
//! Segments may lie in segments.

use candle_core::DType;
use easytransfer_abi::et_rng_state;

use crate::error::{Result, fail};
use crate::recompute;
use crate::rng::Rng;
use crate::storage::Value;
use crate::tape::{self, Edge, Node, Pass};
use crate::tensor::Tensor;
use crate::versions;

/// Computes a segment's outputs from its inputs, with random numbers from the generator alone. It is called once or
/// twice, perhaps on another thread.
pub type SegmentFn = Box<dyn Fn(&[&Tensor], Option<&Rng>) -> Result<Vec<Tensor>> + Send>;

/// What the second run must repeat.
struct First {
    /// Type and shape of each output, and whether a gradient can flow into it.
    outputs: Vec<(DType, Vec<usize>, bool)>,
    /// The generator before and after.
    rng: Option<(et_rng_state, et_rng_state)>,
}

/// Runs a segment. Its operations are recorded as usual, unless recomputation by layer is on
/// ([`recompute::Recompute::Layer`]): then only `inputs` are kept, and the backward pass runs the segment again.
/// Gradients also reach what the segment uses without its being an input, such as parameters.
///
/// # Errors
/// The segment's. In the backward pass also: `FAILED_PRECONDITION` when the second run gives other outputs or takes
/// other random numbers than the first.
pub fn run_segment(
    inputs: &[&Tensor],
    rng: Option<&Rng>,
    segment: SegmentFn,
) -> Result<Vec<Tensor>> {
    if !recompute::is_by_layer() || !tape::is_recording() || tape::is_dropping() {
        return segment(inputs, rng);
    }
    recompute::found_segment();
    let before = rng.map(Rng::state);
    let (outputs, versions) = versions::collect(|| {
        let _dropping = tape::dropping();
        segment(inputs, rng)
    });
    let outputs = outputs?;
    let is_of_segment = |output: &Tensor| matches!(output.edge(), Some(Edge::Dropped));
    if !outputs.iter().any(is_of_segment) {
        return Ok(outputs); // Nothing in it is tracked.
    }
    let first = First {
        outputs: outputs
            .iter()
            .map(|output| (output.dtype(), output.dims().to_vec(), output.is_tracked()))
            .collect(),
        rng: before.zip(rng.map(Rng::state)),
    };
    let values: Vec<Value> = inputs.iter().map(|input| input.save()).collect();
    let edges = inputs.iter().map(|input| input.edge().cloned()).collect();
    let again = move |pass: &mut Pass<'_>| second_run(pass, values, first, segment);
    let types = outputs.iter().map(Tensor::dtype).collect();
    let node = Node::new("checkpoint", edges, versions, types, false, Box::new(again));
    Ok(outputs
        .into_iter()
        .enumerate()
        .map(|(index, output)| {
            if is_of_segment(&output) {
                output.with_edge(Edge::Node { node: node.clone(), index })
            } else {
                output
            }
        })
        .collect())
}

fn second_run(
    pass: &mut Pass<'_>,
    values: Vec<Value>,
    first: First,
    segment: SegmentFn,
) -> Result<()> {
    let inputs: Vec<Tensor> = values
        .into_iter()
        .enumerate()
        .map(|(index, value)| match pass.edge(index) {
            Some(edge) => Tensor::from_edge(value.into_inner(), edge.clone()),
            None => Tensor::new(value.into_inner()),
        })
        .collect();
    let rng = first.rng.map(|(before, _)| Rng::at(before));
    let outputs = {
        let _recording = tape::recording();
        segment(&inputs.iter().collect::<Vec<_>>(), rng.as_ref())?
    };
    drop(segment);
    drop(inputs);
    if outputs.len() != first.outputs.len() {
        fail!(
            ET_ERR_FAILED_PRECONDITION,
            "the segment's second run made {} outputs, the first {}: it must depend on its inputs alone",
            outputs.len(),
            first.outputs.len()
        );
    }
    if let (Some(rng), Some((before, after))) = (&rng, first.rng) {
        let found = rng.state().offset.wrapping_sub(before.offset);
        let expected = after.offset.wrapping_sub(before.offset);
        if found != expected {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "the segment's second run took {found} random numbers, the first {expected}: it must depend on its inputs alone"
            );
        }
    }
    for (index, (output, (dtype, dims, is_tracked))) in
        outputs.into_iter().zip(first.outputs).enumerate()
    {
        if output.dtype() != dtype || output.dims() != dims || output.is_tracked() != is_tracked {
            fail!(
                ET_ERR_FAILED_PRECONDITION,
                "output {index} of the segment's second run is {:?} of {}{}, of the first {dims:?} of {}{}: it must depend on its \
                 inputs alone",
                output.dims(),
                output.dtype().as_str(),
                if output.is_tracked() { "" } else { " without history" },
                dtype.as_str(),
                if is_tracked { "" } else { " without history" },
            );
        }
        if let (Some(edge), Some(grad)) = (output.edge().cloned(), pass.grad(index)) {
            // The output's value is not needed any more.
            drop(output);
            pass.give_to(&edge, grad)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::nn::norm::dropout;
    use crate::ops::{binary, unary};
    use crate::recompute::{Recompute, set_recompute};
    use crate::storage;
    use easytransfer_abi::{ET_BINARY_ADD, ET_BINARY_MUL, ET_UNARY_EXP, ET_UNARY_TANH};

    fn with_level<R>(level: Recompute, f: impl FnOnce() -> R) -> R {
        set_recompute(level);
        let result = f();
        set_recompute(Recompute::None);
        result
    }

    fn noise(len: usize, step: u64) -> Tensor {
        let values = (0..len as u64).map(|i| ((i * 37 + step * 11) % 101) as f32 / 50.0 - 1.0);
        Tensor::new(storage::tensor_from_vec(values.collect(), len).unwrap())
    }

    fn bits(x: &Tensor) -> Vec<u32> {
        storage::with_f32(x.value(), |x| x.iter().map(|x| x.to_bits()).collect()).unwrap()
    }

    /// x is used three times, beside a captured tensor with a history and a leaf.
    fn segment(captured: Tensor, leaf: Tensor, runs: Arc<AtomicUsize>) -> SegmentFn {
        Box::new(move |inputs, rng| {
            runs.fetch_add(1, Ordering::Relaxed);
            let x = inputs[0];
            let a = unary::unary(ET_UNARY_TANH, x)?;
            let b = dropout(&binary::binary(ET_BINARY_MUL, &a, &leaf)?, 0.3, rng)?;
            let c = binary::binary(ET_BINARY_MUL, &b, x)?;
            let d = binary::binary(ET_BINARY_ADD, &c, &captured)?;
            Ok(vec![binary::binary(ET_BINARY_ADD, &d, x)?, a])
        })
    }

    /// Output, gradients of all leaves, the generator's offset, and how often segments ran.
    fn run(level: Recompute, nested: bool) -> (Vec<Vec<u32>>, u64, usize) {
        with_level(level, || {
            let (x, w, leaf) = (noise(301, 1).leaf(), noise(301, 2).leaf(), noise(301, 3).leaf());
            let rng = Rng::new(3, 4);
            let runs = Arc::new(AtomicUsize::new(0));
            let captured = unary::unary(ET_UNARY_EXP, &w).unwrap();
            let mut y = unary::unary(ET_UNARY_EXP, &x).unwrap();
            let outside = y.clone();
            for _ in 0..3 {
                let inner = segment(captured.clone(), leaf.clone(), runs.clone());
                let whole: SegmentFn = if nested {
                    let inner = Arc::new(Mutex::new(inner));
                    Box::new(move |inputs, rng| {
                        let inner = inner.clone();
                        let again: SegmentFn =
                            Box::new(move |inputs, rng| crate::sync::lock(&inner)(inputs, rng));
                        let mut outputs = run_segment(inputs, rng, again)?;
                        outputs[0] = dropout(&outputs[0], 0.2, rng)?;
                        Ok(outputs)
                    })
                } else {
                    inner
                };
                let outputs = run_segment(&[&y], Some(&rng), whole).unwrap();
                y = binary::binary(ET_BINARY_ADD, &outputs[0], &outputs[1]).unwrap();
            }
            let y = binary::binary(ET_BINARY_MUL, &y, &outside).unwrap();
            let value = bits(&y);
            tape::backward(&y, Some(&noise(301, 9))).unwrap();
            let mut all = vec![value];
            all.extend([x, w, leaf].iter().map(|leaf| bits(&leaf.leaf_grad().unwrap().unwrap())));
            (all, rng.state().offset, runs.load(Ordering::Relaxed))
        })
    }

    #[test]
    fn gradients_have_the_same_bits_nested_or_not() {
        for nested in [false, true] {
            let (plain, offset, runs) = run(Recompute::None, nested);
            let (again, offset_again, runs_again) = run(Recompute::Layer, nested);
            assert_eq!(runs, 3);
            assert_eq!(runs_again, if nested { 9 } else { 6 });
            assert_eq!(offset, offset_again);
            assert!(plain == again, "nested {nested}");
        }
    }

    #[test]
    fn a_segment_without_anything_tracked_runs_once() {
        with_level(Recompute::Layer, || {
            let runs = Arc::new(AtomicUsize::new(0));
            let segment = segment(noise(5, 2), noise(5, 3), runs.clone());
            let outputs = run_segment(&[&noise(5, 1)], None, segment).unwrap();
            assert!(outputs.iter().all(|output| !output.is_tracked()));
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn an_input_that_is_an_output_keeps_its_history() {
        with_level(Recompute::Layer, || {
            let x = noise(4, 1).leaf();
            let segment: SegmentFn = Box::new(|inputs, _| {
                Ok(vec![inputs[0].clone(), unary::unary(ET_UNARY_TANH, inputs[0])?])
            });
            let outputs = run_segment(&[&x], None, segment).unwrap();
            tape::backward(&outputs[0], Some(&noise(4, 2))).unwrap();
            assert_eq!(bits(&x.leaf_grad().unwrap().unwrap()), bits(&noise(4, 2)));
        });
    }

    /// The message of the backward pass through a segment that is called with the number of the run.
    fn failure(
        segment: impl Fn(usize, &Tensor, &Rng) -> Result<Vec<Tensor>> + Send + 'static,
    ) -> String {
        with_level(Recompute::Layer, || {
            let x = noise(6, 1).leaf();
            let runs = AtomicUsize::new(0);
            let rng = Rng::new(1, 1);
            let segment: SegmentFn = Box::new(move |inputs, rng| {
                segment(runs.fetch_add(1, Ordering::Relaxed), inputs[0], rng.unwrap())
            });
            let outputs = run_segment(&[&x], Some(&rng), segment).unwrap();
            let error = tape::backward(&outputs[0], Some(&noise(6, 2))).unwrap_err();
            // What a pass switches is switched back.
            assert!(tape::is_recording() && !tape::is_dropping());
            error.message.clone()
        })
    }

    #[test]
    fn second_runs_that_differ_or_fail_are_errors() {
        let tanh = |x: &Tensor| unary::unary(ET_UNARY_TANH, x);
        let text = failure(move |run, x, _| if run == 0 { Ok(vec![tanh(x)?]) } else { Ok(vec![]) });
        assert!(text.contains("made 0 outputs, the first 1"), "{text}");
        let text = failure(move |run, x, rng| {
            if run == 1 {
                rng.bits();
            }
            Ok(vec![dropout(&tanh(x)?, 0.5, Some(rng))?])
        });
        assert!(text.contains("took 10 random numbers, the first 8"), "{text}");
        let text = failure(move |run, x, _| {
            let y = tanh(x)?;
            Ok(vec![if run == 1 { y.detach() } else { y }])
        });
        assert!(text.contains("without history"), "{text}");
        let text = failure(move |run, x, _| {
            if run == 1 {
                fail!(ET_ERR_BAD_INPUT, "out of luck");
            }
            Ok(vec![tanh(x)?])
        });
        assert!(text.contains("backward of checkpoint") && text.contains("out of luck"), "{text}");
    }

    #[test]
    fn values_that_left_a_segment_take_no_gradient() {
        let left: Arc<Mutex<Option<Tensor>>> = Arc::default();
        with_level(Recompute::Layer, || {
            let x = noise(6, 1).leaf();
            let door = left.clone();
            let segment: SegmentFn = Box::new(move |inputs, _| {
                let y = unary::unary(ET_UNARY_TANH, inputs[0])?;
                *crate::sync::lock(&door) = Some(y.clone());
                Ok(vec![y])
            });
            let outputs = run_segment(&[&x], None, segment).unwrap();
            let left = crate::sync::lock(&left).take().unwrap();
            let sum = binary::binary(ET_BINARY_ADD, &left, &outputs[0]).unwrap();
            let error = tape::backward(&sum, Some(&noise(6, 2))).unwrap_err();
            assert!(error.message.contains("none of its outputs"), "{}", error.message);
            // Nor does a pass that begins within a segment.
            let inner: SegmentFn = Box::new(|inputs, _| {
                let y = unary::unary(ET_UNARY_TANH, inputs[0])?;
                tape::backward(&y, Some(&noise(6, 2)))?;
                Ok(vec![y])
            });
            assert!(run_segment(&[&x], None, inner).is_err());
            assert!(!tape::is_dropping());
        });
    }
}
