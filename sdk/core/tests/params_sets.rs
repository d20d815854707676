//! Parts of sets, values and gradients from one set to another, arenas as tensors, steps over a part of the arena, and
//! what machines do with all of that; in f32 and f64.

mod boundary;
mod sets;

use std::collections::BTreeMap;
use std::ptr;

use boundary::{err, make, ok, str_of, table, text};
use easytransfer_abi::*;
use easytransfer_core::handle;
use easytransfer_core::optim;
use easytransfer_core::params::Params;
use easytransfer_core::storage;
use easytransfer_core::tensor::Tensor;
use sets::*;

const DTYPES: [i32; 2] = [ET_DTYPE_F32, ET_DTYPE_F64];

fn names(params: &Params) -> Vec<String> {
    params.all().iter().map(|param| param.name().to_owned()).collect()
}

fn refused<T>(result: easytransfer_core::error::Result<T>, code: i32, words: &[&str]) {
    let error = result.err().expect("an error");
    assert_eq!(error.code, code, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word:?} is not in {:?}", error.message);
    }
}

/// Changes the elements of a tensor where they are, as a library of communication would.
fn write(x: &Tensor, f: impl Fn(usize, f64) -> f64) {
    match x.dtype() {
        candle_core::DType::F64 => storage::with_mut::<f64, _>(x.value(), |all| {
            all.iter_mut().enumerate().for_each(|(i, x)| *x = f(i, *x));
        }),
        _ => storage::with_mut::<f32, _>(x.value(), |all| {
            all.iter_mut().enumerate().for_each(|(i, x)| *x = f(i, f64::from(*x)) as f32);
        }),
    }
    .unwrap();
}

#[test]
fn a_part_has_its_own_parameters_and_the_same_memory() {
    let params = set(1, ET_DTYPE_F32);
    let part = params.part(&["head.*", "*.bias"]).unwrap();
    assert_eq!(names(&part), ["encoder.bias", "head.weight", "head.bias"]);
    assert_eq!((part.len(), part.arena_len()), (3, params.arena_len()));
    assert_eq!(part.at(1).unwrap().name(), "head.weight");
    assert!(part.find("head.bias").is_ok() && part.at(3).is_none());
    refused(part.find("encoder.weight"), ET_ERR_NOT_FOUND, &["encoder.weight", "encoder.bias"]);
    refused(part.root().param("new", &[1], SHAPE_INIT), ET_ERR_FAILED_PRECONDITION, &["sealed"]);
    // A frozen parameter that fits belongs to the part: its value is copied along.
    assert_eq!(names(&params.part(&["encoder.*"]).unwrap()).len(), 4);
    part.find("head.bias").unwrap().assign(&tensor(candle_core::DType::F32, &[3], 9)).unwrap();
    assert_eq!(all_values(&params)["head.bias"], noise(3, 9));
    // Parts of parts; a snapshot is that of the members.
    let inner = part.part(&["*weight"]).unwrap();
    assert_eq!(names(&inner), ["head.weight"]);
    let snapshot = inner.snapshot().unwrap();
    let before = all_values(&params);
    inner.lerp(&set(2, ET_DTYPE_F32), 1.0).unwrap();
    assert_ne!(all_values(&params), before);
    inner.restore(&snapshot).unwrap();
    assert_eq!(all_values(&params), before);

    refused(params.part(&["head.*", "heed.*"]), ET_ERR_NOT_FOUND, &["heed.*", "head."]);
    refused(params.part(&["encoder.scale"]), ET_ERR_NOT_FOUND, &["encoder.scale", "trainable"]);
    refused(part.part(&["encoder.weight"]), ET_ERR_NOT_FOUND, &["encoder.weight"]);
    refused(params.part(&[]), ET_ERR_INVALID_ARGUMENT, &["pattern"]);
    let open = Params::new(0, ET_DTYPE_F32).unwrap();
    refused(open.part(&["*"]), ET_ERR_FAILED_PRECONDITION, &["seal"]);
}

const SHAPE_INIT: et_init = et_init { kind: ET_INIT_ZEROS, reserved: 0, a: 0.0, b: 0.0 };

fn norm(grads: &BTreeMap<String, Vec<f64>>, is_member: impl Fn(&str) -> bool) -> f64 {
    let members = grads.iter().filter(|(name, _)| is_member(name));
    members.flat_map(|(_, grad)| grad).map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn norms_clipping_scaling_and_forgetting_see_the_members_alone() {
    for dtype in DTYPES {
        let params = set(1, dtype);
        let part = params.part(&["encoder.table", "head.*"]).unwrap();
        let is_member = |name: &str| name == "encoder.table" || name.starts_with("head.");
        pass(&params, 1);
        // A factor that the memory does not have yet concerns everybody.
        params.scale_grads(0.5).unwrap();
        let grads = all_grads(&set_with_pass(dtype, 0.5));
        let expected = norm(&grads, is_member);
        assert!((part.grad_norm().unwrap() - expected).abs() < 1e-6);
        assert!((params.grad_norm().unwrap() - norm(&grads, |_| true)).abs() < 1e-6);
        let limit = expected / 4.0;
        let found = values(&part.clip_grads(limit).unwrap());
        assert!((found[0] - expected).abs() < 1e-6);
        assert!((part.grad_norm().unwrap() - limit).abs() < 1e-5);
        part.scale_grads(4.0).unwrap();
        let found = all_grads(&params);
        for (name, grad) in &grads {
            for (x, y) in found[name].iter().zip(grad) {
                assert!((x - y).abs() < 1e-5, "{name}: {x} for {y}");
            }
            assert!(is_member(name) || found[name] == *grad, "{name} was touched");
        }
        part.zero_grads();
        assert_eq!(part.grad_norm().unwrap(), 0.0);
        let rest: Vec<_> = all_grads(&params).into_keys().collect();
        assert_eq!(rest, ["encoder.bias", "encoder.weight"]);
        // What comes after that is overwritten, with or without a factor that waits.
        params.scale_grads(3.0).unwrap();
        pass(&params, 1);
        let (found, fresh) = (all_grads(&params), all_grads(&set_with_pass(dtype, 1.0)));
        assert_eq!(found["encoder.table"], fresh["encoder.table"]);
        assert_eq!(found["head.weight"], fresh["head.weight"]);
    }
}

fn set_with_pass(dtype: i32, factor: f64) -> Params {
    let params = set(1, dtype);
    pass(&params, 1);
    params.scale_grads(factor).unwrap();
    params
}

/// a + factor b, in the arithmetic of a type.
fn sum(dtype: i32, a: f64, factor: f64, b: f64) -> f64 {
    match dtype {
        ET_DTYPE_F64 => a + factor * b,
        _ => f64::from(a as f32 + factor as f32 * b as f32),
    }
}

#[test]
fn values_and_gradients_go_from_set_to_set() {
    for dtype in DTYPES {
        let results: BTreeMap<_, _> = between(dtype).into_iter().collect();
        let (a, b) = (&results["a"], &results["b"]);
        for (name, found) in &results["a quarter of the way"] {
            for (i, x) in found.iter().enumerate() {
                let difference = sum(dtype, b[name][i], -1.0, a[name][i]);
                assert_eq!(*x, sum(dtype, a[name][i], 0.25, difference), "{name} {i}");
            }
        }
        assert_eq!(&results["all of it"], b, "to the bit, the frozen one too");
        let (a, b) = (&results["gradients of a"], &results["gradients of b"]);
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        let near = |what: &str, f: &dyn Fn(f64, f64) -> f64| {
            assert_eq!(results[what].len(), a.len(), "{what}");
            for (name, found) in &results[what] {
                for (i, x) in found.iter().enumerate() {
                    let expected = f(a[name][i], b[name][i]);
                    let tolerance = if dtype == ET_DTYPE_F64 { 1e-14 } else { 1e-6 };
                    assert!((x - expected).abs() < tolerance, "{what}: {name} {i}: {x} {expected}");
                }
            }
        };
        near("added", &|a, b| 2.0 * a + 0.5 * b);
        near("added from", &|_, b| b);
        near("added to nothing", &|_, b| b);
        near("added to itself", &|_, b| 0.5 * b);
    }
}

#[test]
fn rows_of_gradients_stay_rows() {
    let (a, b) = (set(1, ET_DTYPE_F32), set(2, ET_DTYPE_F32));
    // Garbage in rows that no pass of the next step touches.
    pass(&a, 2);
    a.scale_grads(f64::INFINITY).unwrap();
    let _ = a.find("encoder.table").unwrap().grad().unwrap();
    a.zero_grads();
    pass(&b, 0);
    a.add_grads(&b, 1.0).unwrap();
    assert_eq!(all_grads(&a), all_grads(&b));
    assert!(a.grad_norm().unwrap().is_finite());
}

#[test]
fn misuse_between_sets_is_refused_and_changes_nothing() {
    let whole = set(1, ET_DTYPE_F32);
    pass(&whole, 1);
    let other = Params::new(2, ET_DTYPE_F32).unwrap();
    for (name, shape) in SHAPES {
        let shape = if name == "head.bias" { &[4][..] } else { shape };
        other.root().param(name, shape, SHAPE_INIT).unwrap();
    }
    let before = (all_values(&whole), all_values(&other));
    refused(whole.lerp(&other, 0.5), ET_ERR_SHAPE, &["head.bias", "[3]", "[4]"]);
    refused(other.lerp(&whole, 0.5), ET_ERR_SHAPE, &["head.bias"]);
    for factor in [f64::NAN, f64::INFINITY] {
        refused(whole.lerp(&whole, factor), ET_ERR_INVALID_ARGUMENT, &["finite"]);
        refused(whole.add_grads(&whole, factor), ET_ERR_INVALID_ARGUMENT, &["finite"]);
    }
    let small = Params::new(2, ET_DTYPE_F32).unwrap();
    small.root().param("head.weights", &[3, 6], SHAPE_INIT).unwrap();
    refused(small.lerp(&whole, 1.0), ET_ERR_NOT_FOUND, &["head.weights", "\"head.weight\""]);
    refused(other.add_grads(&whole, 1.0), ET_ERR_FAILED_PRECONDITION, &["seal"]);
    refused(whole.add_grads(&small, 1.0), ET_ERR_FAILED_PRECONDITION, &["seal"]);
    small.seal().unwrap();
    refused(small.add_grads(&whole, 1.0), ET_ERR_NOT_FOUND, &["encoder.table"]);
    refused(whole.lerp(&set(1, ET_DTYPE_F64), 1.0), ET_ERR_DTYPE, &["one element type"]);
    let frozen = set(3, ET_DTYPE_F32);
    frozen.find("head.weight").unwrap().set_trainable(false).unwrap();
    refused(frozen.add_grads(&whole, 1.0), ET_ERR_FAILED_PRECONDITION, &["head.weight", "frozen"]);
    assert!(all_grads(&frozen).is_empty());
    assert_eq!((all_values(&whole), all_values(&other)), before);
    // A smaller set follows a larger one, before and after `seal`.
    let head = Params::new(2, ET_DTYPE_F32).unwrap();
    head.root().param("head.weight", &[3, 6], SHAPE_INIT).unwrap();
    head.lerp(&whole, 1.0).unwrap();
    assert_eq!(all_values(&head)["head.weight"], before.0["head.weight"]);
    // A part that follows its own set stays where it is.
    whole.part(&["head.*"]).unwrap().lerp(&whole, 0.5).unwrap();
    assert_eq!(all_values(&whole), before.0);
}

#[test]
fn arenas_are_settled_and_shared() {
    for dtype in DTYPES {
        let params = set(1, dtype);
        refused(params.arena_view(3), ET_ERR_INVALID_ARGUMENT, &["ET_ARENA_VALUES"]);
        let open = Params::new(0, dtype).unwrap();
        refused(open.arena_view(ET_ARENA_GRADS), ET_ERR_FAILED_PRECONDITION, &["seal"]);
        pass(&params, 2);
        params.zero_grads();
        pass(&params, 1);
        params.scale_grads(0.5).unwrap();
        let expected = all_grads(&params);
        assert!(!expected.contains_key("head.bias"));
        let part = params.part(&["encoder.*"]).unwrap();
        let grads = part.arena_view(ET_ARENA_GRADS).unwrap();
        assert_eq!(grads.dims(), [params.arena_len()]);
        assert!(!params.find("head.bias").unwrap().has_grad(), "it is no member of the part");
        let grads = params.arena_view(ET_ARENA_GRADS).unwrap();
        let found = values(&grads);
        // Each parameter begins at a multiple of 16 elements.
        let mut start = 0;
        for (name, shape) in &SHAPES[..5] {
            let len: usize = shape.iter().product();
            let zeros = vec![0.0; len];
            assert_eq!(found[start..start + len], expected.get(*name).unwrap_or(&zeros)[..]);
            start += len.next_multiple_of(16);
            assert!(
                found[start - (len.next_multiple_of(16) - len)..start].iter().all(|x| *x == 0.0)
            );
        }
        assert_eq!(start, params.arena_len());
        assert_eq!(all_grads(&params)["head.bias"], [0.0; 3]);
        assert!(!params.find("encoder.scale").unwrap().has_grad());
        write(&grads, |_, x| 2.0 * x);
        for (name, grad) in all_grads(&params) {
            let twice = expected.get(&name).map(|x| x.iter().map(|x| 2.0 * x).collect());
            assert_eq!(grad, twice.unwrap_or(vec![0.0; 3]), "{name}");
        }
        let all = params.arena_view(ET_ARENA_VALUES).unwrap();
        write(&all, |_, _| 1.5);
        let found = all_values(&params);
        assert!(SHAPES[..5].iter().all(|(name, _)| found[*name].iter().all(|x| *x == 1.5)));
        assert!(found["encoder.scale"].iter().all(|x| *x != 1.5));
        drop((params, part, open));
        assert!(values(&all).iter().all(|x| *x == 1.5), "the tensor outlives its set");
        // A frozen parameter has no gradient, whatever is written.
        let params = set(1, dtype);
        params.find("head.weight").unwrap().set_trainable(false).unwrap();
        params.arena_view(ET_ARENA_GRADS).unwrap();
        assert!(!params.find("head.weight").unwrap().has_grad());
    }
}

#[test]
fn two_half_steps_are_one_whole_step_to_the_bit() {
    let len = set(1, ET_DTYPE_F32).arena_len();
    for dtype in DTYPES {
        for kind in KINDS {
            let whole = train(dtype, kind, None, &[]);
            assert_ne!(whole, all_values(&set(5, dtype)), "{kind}");
            // Between parameters: the table has 42 elements and begins the arena, the weight follows at 48.
            for bounds in [&[42][..], &[48], &[45, 45], &[48, 96], &[len]] {
                assert_eq!(train(dtype, kind, None, bounds), whole, "kind {kind}, {bounds:?}");
            }
            if !matches!(kind, ET_OPTIM_LAMB | ET_OPTIM_ADAFACTOR) {
                for bounds in [&[len / 2][..], &[1], &[7, 20, 41, 50, 100]] {
                    assert_eq!(train(dtype, kind, None, bounds), whole, "kind {kind}, {bounds:?}");
                }
            }
        }
    }
}

#[test]
fn optimizers_of_disjoint_parts_are_one_optimizer_of_the_whole() {
    for dtype in DTYPES {
        for kind in KINDS {
            let whole = train(dtype, kind, None, &[]);
            let start = all_values(&set(5, dtype));
            let (head, rest) = (["head.*"], ["encoder.*"]);
            let head = train(dtype, kind, Some(&head), &[]);
            let rest = train(dtype, kind, Some(&rest), &[48]);
            for name in whole.keys() {
                let (mine, other) =
                    if name.starts_with("head.") { (&head, &rest) } else { (&rest, &head) };
                assert_eq!(mine[name], whole[name], "kind {kind}: {name}");
                assert_eq!(other[name], start[name], "kind {kind}: {name} is no member");
            }
        }
    }
    // The state of a part is as long as what lies between its members.
    let params = set(1, ET_DTYPE_F32);
    let head = params.part(&["head.*"]).unwrap();
    let state = optim::state(&head, ET_OPTIM_ADAM).unwrap();
    assert_eq!(state.get("exp_avg").unwrap().dims(), [32 + 3]);
    let of_whole = optim::step(&params, &state, &step_of(ET_OPTIM_ADAM, 1, 0, 0));
    refused(of_whole, ET_ERR_SHAPE, &["another set"]);
}

#[test]
fn bounds_of_steps_are_checked() {
    let params = set(1, ET_DTYPE_F32);
    let len = params.arena_len();
    pass(&params, 1);
    let before = all_values(&params);
    for kind in KINDS {
        let state = optim::state(&params, kind).unwrap();
        let step = |begin, end| optim::step(&params, &state, &step_of(kind, 1, begin, end));
        for (begin, end) in [(0, len + 1), (20, 10), (len + 1, 0), (usize::MAX, 0)] {
            refused(step(begin, end), ET_ERR_INVALID_ARGUMENT, &["begin", &len.to_string()]);
        }
        if matches!(kind, ET_OPTIM_LAMB | ET_OPTIM_ADAFACTOR) {
            for (begin, end) in [(0, 50), (41, 0), (1, 48)] {
                refused(step(begin, end), ET_ERR_INVALID_ARGUMENT, &["inside", "encoder."]);
            }
        }
        step(48, 48).unwrap();
        step(len, 0).unwrap();
        assert_eq!(all_values(&params), before, "{kind}: nothing was in range");
    }
}

/// Two machines of a pretend group: everybody's tensor becomes the sum of all.
fn all_reduce(members: &[&Params]) {
    let grads: Vec<_> = members.iter().map(|p| p.arena_view(ET_ARENA_GRADS).unwrap()).collect();
    let each: Vec<Vec<f64>> = grads.iter().map(values).collect();
    for grad in &grads {
        write(grad, |i, _| each.iter().map(|values| values[i]).sum());
    }
}

/// Everybody's part of the values, in the order of the members, into everybody's values.
fn all_gather(members: &[&Params], bounds: &[usize]) {
    let all: Vec<_> = members.iter().map(|p| p.arena_view(ET_ARENA_VALUES).unwrap()).collect();
    let each: Vec<Vec<f64>> = all.iter().map(values).collect();
    for tensor in &all {
        write(tensor, |i, _| each[bounds.iter().filter(|bound| **bound <= i).count()][i]);
    }
}

#[test]
fn machines_that_share_the_work_train_one_model() {
    for dtype in DTYPES {
        for kind in KINDS {
            let (one, first, second) = (set(4, dtype), set(4, dtype), set(4, dtype));
            let len = one.arena_len();
            // Between parameters for those kinds that want it.
            let half = match kind {
                ET_OPTIM_LAMB | ET_OPTIM_ADAFACTOR => 48,
                _ => len / 2 - 3,
            };
            let machines = [&first, &second];
            let state = |params: &Params| optim::state(params, kind).unwrap();
            let (whole, parts) = (state(&one), machines.map(state));
            for number in 1..=3u64 {
                for (rank, machine) in machines.into_iter().enumerate() {
                    let seed = 2 * number as usize + rank;
                    pass(&one, seed);
                    pass(machine, seed);
                    if rank == 1 {
                        // One machine alone gives this parameter a gradient.
                        for params in [&one, machine] {
                            let grad = tensor(params.dtype(), &[3], seed);
                            params.find("head.bias").unwrap().set_grad(&grad).unwrap();
                        }
                    }
                }
                all_reduce(&machines);
                assert_eq!(all_grads(&first), all_grads(&one), "{kind}");
                optim::step(&one, &whole, &step_of(kind, number, 0, 0)).unwrap();
                optim::step(&first, &parts[0], &step_of(kind, number, 0, half)).unwrap();
                optim::step(&second, &parts[1], &step_of(kind, number, half, len)).unwrap();
                assert_ne!(all_values(&first), all_values(&one));
                all_gather(&machines, &[half]);
                for machine in machines {
                    assert_eq!(all_values(machine), all_values(&one), "kind {kind} step {number}");
                    machine.zero_grads();
                }
                one.zero_grads();
            }
        }
    }
}

#[test]
fn the_slots_do_the_same() {
    let api: &et_host_param = table(c"et.param/1");
    // SAFETY: the slots are filled, the handles live, and each is released once.
    unsafe {
        let (a, b) =
            (handle::into_raw(set(1, ET_DTYPE_F32)), handle::into_raw(set(2, ET_DTYPE_F32)));
        let again = api.params_retain.unwrap()(a);
        assert_eq!(again, a);
        api.params_release.unwrap()(again);
        let patterns = [text("head.*"), text("encoder.bias")];
        let part = make(|out| api.params_part.unwrap()(a, patterns.as_ptr(), 2, out));
        assert_eq!(api.params_len.unwrap()(part), 3);
        let param = api.params_at.unwrap()(part, 0);
        assert_eq!(str_of(api.name.unwrap()(param)), "encoder.bias");
        ok(api.params_lerp.unwrap()(part, b, 1.0));
        let set_of = |raw| handle::borrow::<Params>(raw).unwrap().clone();
        let found = all_values(&set_of(a));
        assert_eq!(found["head.bias"], all_values(&set_of(b))["head.bias"]);
        assert_ne!(found["encoder.weight"], all_values(&set_of(b))["encoder.weight"]);
        pass(&set_of(b), 1);
        ok(api.params_add_grads.unwrap()(a, b, 1.0));
        assert_eq!(all_grads(&set_of(a)), all_grads(&set_of(b)));
        let grads = make(|out| api.params_arena.unwrap()(a, ET_ARENA_GRADS, out));
        let tensor = handle::borrow::<Tensor>(grads).unwrap().clone();
        assert_eq!(tensor.dims(), [api.params_arena_len.unwrap()(a)]);
        drop(tensor);
        let mut none = ptr::null_mut();
        let unknown = api.params_part.unwrap()(a, [text("nothing")].as_ptr(), 1, &mut none);
        assert_eq!(err(unknown).0, ET_ERR_NOT_FOUND);
        assert!(none.is_null());
        assert_eq!(err(api.params_lerp.unwrap()(a, ptr::null(), 1.0)).0, ET_ERR_INVALID_ARGUMENT);
        assert!(api.params_retain.unwrap()(ptr::null()).is_null());
        handle::release::<Tensor>(grads);
        api.release.unwrap()(param);
        for params in [part, a, b] {
            api.params_release.unwrap()(params);
        }
    }
}
