//! Parameters and optimizers through the C tables.

mod boundary;

use std::ptr;

use boundary::*;
use easytransfer_abi::*;
use easytransfer_core::handle::{self, slice_from};
use easytransfer_core::{ops, optim, tape};

fn api() -> &'static et_host_param {
    table(c"et.param/1")
}

fn data() -> &'static et_host_data {
    table(c"et.data/1")
}

const NORMAL: et_init = et_init { kind: ET_INIT_NORMAL, reserved: 0, a: 0.0, b: 1.0 };

/// A set with its root scope, given back together with what was declared.
struct Set {
    params: *mut et_params,
    root: *mut et_scope,
    made: Vec<*mut et_param>,
}

impl Set {
    fn new(seed: u64) -> Self {
        // SAFETY: the slots are filled and the handles live.
        unsafe {
            let params = make(|out| api().params_new.unwrap()(seed, ET_DTYPE_F32, out));
            Self { params, root: api().params_root.unwrap()(params), made: Vec::new() }
        }
    }

    fn declare(&mut self, name: &str, shape: &[usize]) -> *mut et_param {
        // SAFETY: as above.
        let param = make(|out| unsafe {
            api().scope_param.unwrap()(
                self.root,
                text(name),
                shape.as_ptr(),
                shape.len(),
                &NORMAL,
                out,
            )
        });
        self.made.push(param);
        param
    }

    fn seal(&self) {
        // SAFETY: as above.
        ok(unsafe { api().params_seal.unwrap()(self.params) });
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: all of these are owned by the test.
        unsafe {
            self.made.iter().for_each(|param| api().release.unwrap()(*param));
            api().scope_release.unwrap()(self.root);
            api().params_release.unwrap()(self.params);
        }
    }
}

fn values(param: *const et_param) -> Vec<f32> {
    // SAFETY: a live parameter.
    take_f32(make(|out| unsafe { api().tensor.unwrap()(param, out) })).0
}

fn set_grad(param: *mut et_param, grad: &[f32], shape: &[usize]) {
    let grad = tensor(grad, shape);
    // SAFETY: live handles.
    ok(unsafe { api().set_grad.unwrap()(param, grad) });
    drop_tensor(grad);
}

fn has_grad(param: *const et_param) -> i32 {
    // SAFETY: a live parameter.
    unsafe { api().has_grad.unwrap()(param) }
}

fn step(kind: i32, step: u64) -> et_optim_step {
    et_optim_step {
        struct_size: size_of::<et_optim_step>(),
        kind,
        nesterov: 0,
        lr: 0.1,
        weight_decay: 0.05,
        beta1: 0.9,
        beta2: if kind == ET_OPTIM_ADAFACTOR { -0.8 } else { 0.99 },
        epsilon: if kind == ET_OPTIM_ADAFACTOR { 1e-30 } else { 1e-8 },
        momentum: if kind == ET_OPTIM_ADAFACTOR { 1.0 } else { 0.9 },
        step,
        begin: 0,
        end: 0,
    }
}

#[test]
fn initial_values_depend_on_seed_and_name_alone() {
    let _guard = no_leaks();
    let mut a = Set::new(5);
    let mut b = Set::new(5);
    let mut c = Set::new(6);
    let first = values(a.declare("x.weight", &[3, 4]));
    b.declare("other", &[7]);
    assert_eq!(values(b.declare("x.weight", &[3, 4])), first);
    assert_ne!(values(b.declare("y.weight", &[3, 4])), first);
    assert_ne!(values(c.declare("x.weight", &[3, 4])), first);
    a.seal();
    assert_eq!(values(a.made[0]), first);
}

#[test]
fn names_scopes_and_errors() {
    let _guard = no_leaks();
    let mut set = Set::new(0);
    // SAFETY: live handles.
    unsafe {
        let scope = make(|out| api().scope_child.unwrap()(set.root, text("encoder.0"), out));
        assert_eq!(str_of(api().scope_path.unwrap()(scope)), "encoder.0");
        let shape = [2usize];
        let param = make(|out| {
            api().scope_param.unwrap()(scope, text("bias"), shape.as_ptr(), 1, &NORMAL, out)
        });
        assert_eq!(str_of(api().name.unwrap()(param)), "encoder.0.bias");
        assert_eq!(
            slice_from(api().shape.unwrap()(param), api().rank.unwrap()(param)).unwrap(),
            [2]
        );
        let mut unused = ptr::null_mut();
        let twice = api().scope_param.unwrap()(
            scope,
            text("bias"),
            shape.as_ptr(),
            1,
            &NORMAL,
            &mut unused,
        );
        assert_eq!(err(twice).0, ET_ERR_ALREADY_EXISTS);
        let empty = api().scope_child.unwrap()(scope, text("a..b"), &mut ptr::null_mut());
        assert_eq!(err(empty).0, ET_ERR_INVALID_ARGUMENT);
        let (code, message) =
            err(api().params_find.unwrap()(set.params, text("encoder.0.bas"), &mut unused));
        assert_eq!(code, ET_ERR_NOT_FOUND);
        assert!(message.contains("encoder.0.bias"), "{message}");
        assert!(unused.is_null());
        set.seal();
        let late = api().scope_param.unwrap()(
            scope,
            text("late"),
            shape.as_ptr(),
            1,
            &NORMAL,
            &mut unused,
        );
        assert_eq!(err(late).0, ET_ERR_FAILED_PRECONDITION);
        let found = make(|out| api().params_find.unwrap()(set.params, text("encoder.0.bias"), out));
        assert!(api().params_at.unwrap()(set.params, 1).is_null());
        api().release.unwrap()(found);
        api().release.unwrap()(param);
        api().scope_release.unwrap()(scope);
        assert_eq!(
            err(api().params_new.unwrap()(0, ET_DTYPE_F16, &mut ptr::null_mut())).0,
            ET_ERR_DTYPE
        );
    }
    set.made.clear();
}

#[test]
fn adamw_over_the_arena_equals_a_plain_loop() {
    let _guard = no_leaks();
    let mut set = Set::new(3);
    let weight = set.declare("weight", &[3, 5]);
    let bias = set.declare("bias", &[5]);
    let idle = set.declare("idle", &[2, 2]);
    let frozen = set.declare("frozen", &[4]);
    // SAFETY: live handles.
    unsafe {
        ok(api().set_trainable.unwrap()(frozen, 0));
        ok(api().set_lr_scale.unwrap()(weight, 0.5));
        assert_eq!(api().has_decay.unwrap()(weight), 1);
        assert_eq!(api().has_decay.unwrap()(bias), 0);
        set.seal();
        // Three trainable parameters, each rounded up to 16 elements.
        assert_eq!(api().params_arena_len.unwrap()(set.params), 48);
    }
    let (idle_before, frozen_before) = (values(idle), values(frozen));
    let mut expected: Vec<(Vec<f64>, f64, f64)> = vec![
        (values(weight).into_iter().map(f64::from).collect(), 0.05, 0.05),
        (values(bias).into_iter().map(f64::from).collect(), 0.1, 0.0),
    ];
    let mut moments: Vec<Vec<(f64, f64)>> =
        expected.iter().map(|(values, ..)| vec![(0.0, 0.0); values.len()]).collect();
    // SAFETY: live handles.
    let state = make(|out| unsafe { optim::optim_state(set.params, ET_OPTIM_ADAMW, out) });
    for t in 1..=6u64 {
        // SAFETY: live handles.
        unsafe { api().params_zero_grads.unwrap()(set.params) };
        let grad = |salt: f32, len: usize| -> Vec<f32> {
            (0..len).map(|i| ((i as f32 + salt) * 0.7 + t as f32).sin()).collect()
        };
        let grads = [grad(1.0, 15), grad(9.0, 5)];
        set_grad(weight, &grads[0], &[3, 5]);
        set_grad(bias, &grads[1], &[5]);
        // SAFETY: live handles and a full step.
        ok(unsafe { optim::optim_step(set.params, state, &step(ET_OPTIM_ADAMW, t)) });
        for (((values, lr, decay), moments), grads) in
            expected.iter_mut().zip(&mut moments).zip(&grads)
        {
            for ((p, (m, v)), g) in values.iter_mut().zip(moments).zip(grads) {
                let g = f64::from(*g);
                *p *= 1.0 - *lr * *decay;
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.99 * *v + 0.01 * g * g;
                let (m_hat, v_hat) =
                    (*m / (1.0 - 0.9f64.powi(t as i32)), *v / (1.0 - 0.99f64.powi(t as i32)));
                *p -= *lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
    }
    for (param, (expected, ..)) in [weight, bias].into_iter().zip(&expected) {
        for (found, expected) in values(param).iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
    assert_eq!(values(idle), idle_before);
    assert_eq!(values(frozen), frozen_before);
    // SAFETY: an owned map.
    unsafe { data().map_release.unwrap()(state) };
}

#[test]
fn every_kind_has_a_state_and_lowers_a_square() {
    let _guard = no_leaks();
    for kind in ET_OPTIM_ADAMW..=ET_OPTIM_ADAFACTOR {
        let mut set = Set::new(1);
        let weight = set.declare("weight", &[4, 6]);
        let bias = set.declare("bias", &[6]);
        set.seal();
        // SAFETY: live handles.
        let state = make(|out| unsafe { optim::optim_state(set.params, kind, out) });
        let size = || -> f32 { values(weight).iter().chain(&values(bias)).map(|x| x * x).sum() };
        let before = size();
        for t in 1..=20 {
            // SAFETY: live handles.
            unsafe { api().params_zero_grads.unwrap()(set.params) };
            for (param, shape) in [(weight, &[4, 6][..]), (bias, &[6])] {
                set_grad(param, &values(param), shape);
            }
            let mut step = step(kind, t);
            step.lr = 0.05;
            // SAFETY: live handles.
            ok(unsafe { optim::optim_step(set.params, state, &step) });
        }
        assert!(size() < 0.8 * before, "kind {kind}: {} after {before}", size());
        // A state of another kind or another set is refused.
        let other = if kind == ET_OPTIM_SGD { ET_OPTIM_ADAM } else { ET_OPTIM_SGD };
        // SAFETY: live handles.
        let wrong = unsafe { optim::optim_step(set.params, state, &step(other, 1)) };
        assert_eq!(err(wrong).0, ET_ERR_SHAPE);
        // SAFETY: an owned map.
        unsafe { data().map_release.unwrap()(state) };
    }
    let set = Set::new(1);
    // SAFETY: live handles.
    let early = unsafe { optim::optim_state(set.params, ET_OPTIM_SGD, &mut ptr::null_mut()) };
    assert_eq!(err(early).0, ET_ERR_FAILED_PRECONDITION);
    set.seal();
    // SAFETY: live handles.
    let unknown = unsafe { optim::optim_state(set.params, 77, &mut ptr::null_mut()) };
    assert_eq!(err(unknown).0, ET_ERR_INVALID_ARGUMENT);
}

#[test]
fn gradients_flow_into_the_arena_and_are_forgotten() {
    let _guard = no_leaks();
    let mut set = Set::new(2);
    let used = set.declare("used", &[3]);
    let unused = set.declare("unused", &[2]);
    set.seal();
    let backward = || {
        // SAFETY: live handles.
        let x = make(|out| unsafe { api().tensor.unwrap()(used, out) });
        let square = ops::binary::binary(ET_BINARY_MUL, &value(x), &value(x)).unwrap();
        let loss = ops::reduce::reduce(ET_REDUCE_SUM, &square, &[], false).unwrap();
        drop_tensor(x);
        tape::backward(&loss, None).unwrap();
    };
    let grad = |param| {
        let mut out = ptr::null_mut();
        // SAFETY: live handles.
        ok(unsafe { api().grad.unwrap()(param, &mut out) });
        (!out.is_null()).then(|| take_f32(out).0)
    };
    let x = values(used);
    assert_eq!((has_grad(used), grad(used)), (0, None));
    backward();
    assert_eq!((has_grad(used), has_grad(unused)), (1, 0));
    assert_eq!(grad(used).unwrap(), x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    backward();
    assert_eq!(grad(used).unwrap(), x.iter().map(|x| 4.0 * x).collect::<Vec<_>>());
    assert_eq!(grad(unused), None);
    // SAFETY: live handles.
    unsafe {
        let mut norm = 0.0;
        ok(api().params_grad_norm.unwrap()(set.params, &mut norm));
        let expected = x.iter().map(|x| f64::from(4.0 * x).powi(2)).sum::<f64>().sqrt();
        assert!((norm - expected).abs() < 1e-6 * expected);
        ok(api().params_scale_grads.unwrap()(set.params, 0.25));
        assert_eq!(grad(used).unwrap(), x);
        api().params_zero_grads.unwrap()(set.params);
        assert_eq!((has_grad(used), grad(used)), (0, None));
        // The first contribution overwrites what was there.
        backward();
        assert_eq!(grad(used).unwrap(), x.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
        // Freezing forgets the gradient, and later passes do not bring it back.
        ok(api().set_trainable.unwrap()(used, 0));
        assert_eq!((has_grad(used), api().is_trainable.unwrap()(used)), (0, 0));
        let x = make(|out| api().tensor.unwrap()(used, out));
        assert!(!value(x).is_tracked());
        drop_tensor(x);
        ok(api().set_trainable.unwrap()(used, 1));
        let wrong = tensor(&[1.0, 2.0], &[2]);
        assert_eq!(err(api().set_grad.unwrap()(used, wrong)).0, ET_ERR_SHAPE);
        drop_tensor(wrong);
    }
}

#[test]
fn clipping_scales_what_is_above_the_limit_and_gives_the_norm_before() {
    let _guard = no_leaks();
    let step: &et_host_step = table(c"et.step/1");
    let mut set = Set::new(2);
    let a = set.declare("a", &[2]);
    set.seal();
    let clip = |limit: f64| {
        // SAFETY: live handles.
        let norm = make(|out| unsafe { step.clip_grads.unwrap()(set.params, limit, out) });
        let found = value(norm).value().to_scalar::<f64>().unwrap();
        drop_tensor(norm);
        found
    };
    let grad = || {
        let mut out = ptr::null_mut();
        // SAFETY: live handles.
        ok(unsafe { api().grad.unwrap()(a, &mut out) });
        take_f32(out).0
    };
    assert_eq!(clip(1.0), 0.0, "without gradients");
    let given = tensor(&[3.0, 4.0], &[2]);
    // SAFETY: live handles.
    ok(unsafe { api().set_grad.unwrap()(a, given) });
    drop_tensor(given);
    assert_eq!(clip(6.0), 5.0);
    assert_eq!(grad(), [3.0, 4.0]);
    assert_eq!(clip(2.5), 5.0);
    let factor = 2.5 / (5.0 + 1e-6);
    assert_eq!(grad(), [3.0, 4.0].map(|x: f32| x * factor as f32));
    assert!((clip(f64::INFINITY) - 2.5).abs() < 1e-5);
    for limit in [0.0, -1.0, f64::NAN] {
        // SAFETY: live handles.
        let refused = unsafe { step.clip_grads.unwrap()(set.params, limit, &mut ptr::null_mut()) };
        assert_eq!(err(refused).0, ET_ERR_INVALID_ARGUMENT);
    }
}

#[test]
fn the_cpu_defers_nothing_and_takes_batches_as_they_are() {
    let _guard = no_leaks();
    let step: &et_host_step = table(c"et.step/1");
    // SAFETY: live handles; NULL is refused.
    unsafe {
        assert_eq!(step.defers.unwrap()(), 0);
        let batch = make(|out| data().map_new.unwrap()(out));
        let x = tensor(&[1.0], &[1]);
        ok(data().map_put.unwrap()(batch, text("x"), x));
        drop_tensor(x);
        ok(step.prefetch.unwrap()(batch));
        assert_eq!(data().map_len.unwrap()(batch), 1);
        data().map_release.unwrap()(batch);
        assert_eq!(err(step.prefetch.unwrap()(ptr::null())).0, ET_ERR_INVALID_ARGUMENT);
    }
}

#[test]
fn gradients_before_seal_and_unfreezing_after_it_are_refused() {
    let _guard = no_leaks();
    let mut set = Set::new(2);
    let a = set.declare("a", &[1]);
    let b = set.declare("b", &[1]);
    // SAFETY: live handles.
    let x = make(|out| unsafe { api().tensor.unwrap()(a, out) });
    let error = tape::backward(&value(x), None).unwrap_err();
    assert_eq!(error.code, ET_ERR_FAILED_PRECONDITION);
    assert!(error.message.contains("params_seal"), "{error}");
    drop_tensor(x);
    // SAFETY: live handles.
    unsafe {
        ok(api().set_trainable.unwrap()(b, 0));
        set.seal();
        assert_eq!(err(api().set_trainable.unwrap()(b, 1)).0, ET_ERR_FAILED_PRECONDITION);
        assert_eq!(err(api().set_lr_scale.unwrap()(a, -1.0)).0, ET_ERR_INVALID_ARGUMENT);
        let grad = tensor(&[1.0], &[1]);
        assert_eq!(err(api().set_grad.unwrap()(b, grad)).0, ET_ERR_FAILED_PRECONDITION);
        drop_tensor(grad);
    }
}

#[test]
fn snapshots_bring_all_values_back() {
    let _guard = no_leaks();
    let mut set = Set::new(4);
    let a = set.declare("a", &[2, 3]);
    let b = set.declare("b", &[5]);
    // SAFETY: live handles.
    unsafe {
        ok(api().set_trainable.unwrap()(b, 0));
        set.seal();
        let before = (values(a), values(b));
        let snapshot = make(|out| api().params_snapshot.unwrap()(set.params, out));
        let (zeros, ones) = (tensor(&[0.0; 6], &[2, 3]), tensor(&[1.0; 5], &[5]));
        let view = make(|out| api().tensor.unwrap()(a, out));
        ok(api().assign.unwrap()(a, zeros));
        ok(api().assign.unwrap()(b, ones));
        // A tensor taken before is a view of the parameter.
        assert_eq!(take_f32(view).0, [0.0; 6]);
        assert_eq!(values(b), [1.0; 5]);
        assert_eq!(err(api().assign.unwrap()(a, ones)).0, ET_ERR_SHAPE);
        ok(api().params_restore.unwrap()(set.params, snapshot));
        assert_eq!((values(a), values(b)), before);

        let mut other = Set::new(4);
        other.declare("a", &[3, 2]);
        other.declare("b", &[5]);
        assert_eq!(err(api().params_restore.unwrap()(other.params, snapshot)).0, ET_ERR_SHAPE);
        let size = data().buffer_size.unwrap()(snapshot);
        let bytes = data().buffer_data.unwrap()(snapshot);
        let cut = make(|out| data().buffer_new.unwrap()(bytes, size - 1, out));
        assert_eq!(err(api().params_restore.unwrap()(set.params, cut)).0, ET_ERR_SHAPE);
        data().buffer_release.unwrap()(cut);
        data().buffer_release.unwrap()(snapshot);
        drop_tensor(zeros);
        drop_tensor(ones);
    }
}

#[test]
fn mapped_values_are_not_copied() {
    let _guard = no_leaks();
    let directory = scratch("mapped");
    let path = directory.join("weights.bin");
    let numbers: Vec<f32> = (0..1000).map(|i| i as f32 * 0.5 - 3.0).collect();
    let mut bytes = vec![0u8; 8];
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    std::fs::write(&path, &bytes).unwrap();
    let mut set = Set::new(0);
    let frozen = set.declare("frozen", &[10, 40]);
    let trained = set.declare("trained", &[600]);
    let half = set.declare("half", &[2]);
    // SAFETY: live handles; the file stays as it is.
    unsafe {
        let buffer = make(|out| data().buffer_map_file.unwrap()(text(path.to_str().unwrap()), out));
        let start = data().buffer_data.unwrap()(buffer).cast::<u8>();
        ok(api().assign_buffer.unwrap()(frozen, ET_DTYPE_F32, buffer, 8));
        ok(api().assign_buffer.unwrap()(trained, ET_DTYPE_F32, buffer, 8 + 1600));
        let halves = [0x00u8, 0x3c, 0x00, 0xc0]; // 1 and -2
        let small = make(|out| data().buffer_new.unwrap()(halves.as_ptr().cast(), 4, out));
        ok(api().assign_buffer.unwrap()(half, ET_DTYPE_F16, small, 0));
        data().buffer_release.unwrap()(small);
        assert_eq!(values(half), [1.0, -2.0]);
        let (code, message) =
            err(api().assign_buffer.unwrap()(trained, ET_DTYPE_F32, buffer, 8 + 1604));
        assert_eq!(code, ET_ERR_SHAPE);
        assert!(message.contains("trained"), "{message}");
        ok(api().set_trainable.unwrap()(frozen, 0));
        let address = |param| {
            let tensor = make(|out| api().tensor.unwrap()(param, out));
            let address =
                easytransfer_core::storage::with_f32(value(tensor).value(), |s| s.as_ptr());
            drop_tensor(tensor);
            address.unwrap().cast::<u8>()
        };
        assert_eq!(address(frozen), start.add(8));
        assert_eq!(address(trained), start.add(1608));
        set.seal();
        // Frozen values stay mapped; trained ones moved into the arena.
        assert_eq!(address(frozen), start.add(8));
        assert_ne!(address(trained), start.add(1608));
        assert_eq!(values(trained), numbers[400..]);
        let tensor = make(|out| api().tensor.unwrap()(frozen, out));
        data().buffer_release.unwrap()(buffer);
        assert_eq!(values(frozen), numbers[..400]);
        let snapshot = make(|out| api().params_snapshot.unwrap()(set.params, out));
        ok(api().params_restore.unwrap()(set.params, snapshot));
        data().buffer_release.unwrap()(snapshot);
        assert_eq!(address(frozen), start.add(8), "equal values stay mapped");
        // A new value leaves the mapped memory alone.
        let zeros = boundary::tensor(&[0.0; 400], &[10, 40]);
        ok(api().assign.unwrap()(frozen, zeros));
        drop_tensor(zeros);
        assert_eq!(values(frozen), [0.0; 400]);
        drop(set);
        // The tensor outlives parameter, set and buffer.
        let (found, shape) = take_f32(tensor);
        assert_eq!(shape, [10, 40]);
        assert_eq!(found, numbers[..400]);
        assert!(found.iter().all(|x| !x.is_nan()));
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn low_rank_updates_train_their_factors_only() {
    let _guard = no_leaks();
    let mut set = Set::new(8);
    let (w, a, b) =
        (set.declare("w", &[2, 3]), set.declare("a", &[1, 3]), set.declare("b", &[2, 1]));
    // SAFETY: live handles.
    unsafe {
        assert_eq!(err(api().set_low_rank.unwrap()(w, b, a, 2.0)).0, ET_ERR_SHAPE);
        ok(api().set_low_rank.unwrap()(w, a, b, 2.0));
        let factor = set.declare("square", &[2, 2]);
        assert_eq!(
            err(api().set_low_rank.unwrap()(factor, factor, factor, 1.0)).0,
            ET_ERR_INVALID_ARGUMENT
        );
        assert_eq!(api().is_trainable.unwrap()(w), 0);
        assert_eq!(err(api().set_trainable.unwrap()(w, 1)).0, ET_ERR_FAILED_PRECONDITION);
        set.seal();
        assert_eq!(err(api().set_low_rank.unwrap()(w, a, b, 2.0)).0, ET_ERR_FAILED_PRECONDITION);
        let (av, bv) = (values(a), values(b));
        let sum = make(|out| api().tensor.unwrap()(w, out));
        assert!(value(sum).is_tracked());
        let loss = ops::reduce::reduce(ET_REDUCE_SUM, &value(sum), &[], false).unwrap();
        tape::backward(&loss, None).unwrap();
        let merged = make(|out| api().merged.unwrap()(w, out));
        assert!(!value(merged).is_tracked());
        assert_eq!(take_f32(merged), take_f32(sum));
        let grad = take_f32(make(|out| api().grad.unwrap()(a, out))).0;
        let expected = 2.0 * (bv[0] + bv[1]);
        assert!(grad.iter().all(|g| (g - expected).abs() < 1e-5), "{grad:?} {expected}");
        assert_eq!((has_grad(b), has_grad(w)), (1, 0));
        // Without the update the sum is W: merged - 2 b a.
        let merged = take_f32(make(|out| api().merged.unwrap()(w, out))).0;
        let zero = tensor(&[0.0, 0.0], &[2, 1]);
        ok(api().assign.unwrap()(b, zero));
        drop_tensor(zero);
        for (i, (w, merged)) in values(w).iter().zip(&merged).enumerate() {
            assert!((merged - w - 2.0 * bv[i / 3] * av[i % 3]).abs() < 1e-5);
        }
    }
}

#[test]
fn wrong_handles_are_refused() {
    let _guard = no_leaks();
    let mut set = Set::new(8);
    let param = set.declare("p", &[1]);
    // SAFETY: live handles, though of other kinds than the slots want, and NULL.
    unsafe {
        let (code, message) = err(api().params_seal.unwrap()(param.cast()));
        assert_eq!(code, ET_ERR_BAD_HANDLE);
        assert!(message.contains("parameter set"), "{message}");
        let mut out = ptr::null_mut();
        assert_eq!(err(api().tensor.unwrap()(set.params.cast(), &mut out)).0, ET_ERR_BAD_HANDLE);
        assert_eq!(err(api().tensor.unwrap()(ptr::null(), &mut out)).0, ET_ERR_INVALID_ARGUMENT);
        assert!(out.is_null());
        assert_eq!(api().is_trainable.unwrap()(set.root.cast()), 0);
        assert!(api().retain.unwrap()(set.root.cast()).is_null());
        api().release.unwrap()(set.root.cast());
        api().release.unwrap()(ptr::null_mut());
        let again = api().retain.unwrap()(param);
        assert_eq!(again, param);
        api().release.unwrap()(again);
        assert_eq!(handle::live_handles(), 3);
    }
}
