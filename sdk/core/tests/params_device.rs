//! Parts of sets and what goes between sets on a device with memory of its own: what the CPU gives, without leaving
//! the device where it can add, copy and scale.

mod memory_of_its_own;
mod sets;

use std::collections::BTreeMap;

use easytransfer_abi::*;
use easytransfer_core::device;
use easytransfer_core::optim;
use memory_of_its_own::{DEVICE, Own};
use sets::*;

type Values = BTreeMap<String, Vec<f64>>;

#[track_caller]
fn assert_near(what: &str, found: &Values, expected: &Values) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, expected) in expected {
        assert_eq!(found[name].len(), expected.len(), "{what}: {name}");
        for (x, y) in found[name].iter().zip(expected) {
            assert!((x - y).abs() <= 2e-6 * y.abs().max(1e-2), "{what}: {name}: {x} for {y}");
        }
    }
}

/// Norms and gradients of a set whose part was clipped, scaled and forgotten.
fn parts() -> Vec<(&'static str, Values)> {
    let params = set(1, ET_DTYPE_F32);
    let part = params.part(&["encoder.table", "head.*"]).unwrap();
    pass(&params, 1);
    params.scale_grads(0.5).unwrap();
    let norms = |name: &str| {
        (name.to_owned(), vec![part.grad_norm().unwrap(), params.grad_norm().unwrap()])
    };
    let mut results = vec![("norms", Values::from([norms("before")]))];
    part.clip_grads(0.3).unwrap();
    results.push(("clipped", all_grads(&params)));
    part.scale_grads(3.0).unwrap();
    results.push(("scaled", all_grads(&params)));
    results.push(("norms after", Values::from([norms("after")])));
    part.zero_grads();
    results.push(("forgotten", all_grads(&params)));
    pass(&params, 2);
    results.push(("after another pass", all_grads(&params)));
    let name = "arena".to_owned();
    let arena = values(&params.arena_view(ET_ARENA_GRADS).unwrap());
    results.push(("settled", Values::from([(name, arena)])));
    results.push(("counted", all_grads(&params)));
    results
}

fn steps(kind: i32) -> Vec<(&'static str, Values)> {
    let half = if matches!(kind, ET_OPTIM_LAMB | ET_OPTIM_ADAFACTOR) { 48 } else { 61 };
    vec![
        ("whole steps", train(ET_DTYPE_F32, kind, None, &[])),
        ("half steps", train(ET_DTYPE_F32, kind, None, &[half])),
        (
            "steps of a part",
            train(ET_DTYPE_F32, kind, Some(&["encoder.w*", "head.bias", "head.w*"]), &[half]),
        ),
    ]
}

#[track_caller]
fn compare(found: Vec<(&'static str, Values)>, expected: &[(&'static str, Values)]) {
    assert_eq!(found.len(), expected.len());
    for ((what, found), (_, expected)) in found.iter().zip(expected) {
        assert_near(what, found, expected);
    }
}

/// One test, because the device is that of the process and counts what it hears.
#[test]
fn a_device_does_what_the_cpu_does_and_keeps_it_there() {
    let of_cpu = (between(ET_DTYPE_F32), parts(), KINDS.map(steps));
    let f64s = between(ET_DTYPE_F64);
    device::install(&*DEVICE).unwrap();

    // It declines: the CPU's way between two copies.
    compare(between(ET_DTYPE_F32), &of_cpu.0);
    compare(parts(), &of_cpu.1);
    for (kind, expected) in KINDS.into_iter().zip(&of_cpu.2) {
        compare(steps(kind), expected);
    }
    // f64 stays in host memory.
    DEVICE.counted();
    assert_eq!(between(ET_DTYPE_F64), f64s);
    assert!(!DEVICE.counted().contains_key("store"));

    // It computes.
    let _own = Own::new();
    compare(between(ET_DTYPE_F32), &of_cpu.0);
    compare(parts(), &of_cpu.1);
    compare(steps(ET_OPTIM_ADAMW), &of_cpu.2[0]);
    let halves = |bounds: &[usize]| train(ET_DTYPE_F32, ET_OPTIM_ADAMW, None, bounds);
    assert_eq!(halves(&[61]), halves(&[]), "to the bit");
    nothing_leaves_the_device();
    copies_in_fewer_bits_follow();
}

fn nothing_leaves_the_device() {
    let (a, b) = (set(1, ET_DTYPE_F32), set(2, ET_DTYPE_F32));
    for params in [&a, &b] {
        pass(params, 1);
        params.scale_grads(0.5).unwrap();
    }
    DEVICE.counted();
    a.lerp(&b, 0.25).unwrap();
    a.lerp(&b, 1.0).unwrap();
    a.add_grads(&b, 0.5).unwrap();
    let part = a.part(&["head.*"]).unwrap();
    part.scale_grads(2.0).unwrap();
    part.clip_grads(0.1).unwrap();
    a.arena_view(ET_ARENA_VALUES).unwrap();
    a.arena_view(ET_ARENA_GRADS).unwrap();
    let counted = DEVICE.counted();
    assert!(!counted.contains_key("fell back"), "{counted:?}");
    assert!(counted["store"] > 20 && counted["scale"] > 10, "{counted:?}");
}

/// A step over a part writes the copies of what it changes, and those of the rest stay good; other writes make the
/// copies stale.
fn copies_in_fewer_bits_follow() {
    let params = set(3, ET_DTYPE_F32);
    let half = params.arena_len() / 2;
    let head = params.part(&["head.*"]).unwrap();
    let (of_all, of_head) = (
        optim::state(&params, ET_OPTIM_ADAMW).unwrap(),
        optim::state(&head, ET_OPTIM_ADAMW).unwrap(),
    );
    let check = || {
        for param in params.all().into_iter().filter(|param| param.is_trainable()) {
            let tensor = param.tensor().unwrap();
            let packs = tensor.packs().unwrap();
            let copy = packs.narrow(tensor.stored(), candle_core::DType::BF16).unwrap();
            let host = device::Device::download(&*DEVICE, &copy).unwrap();
            let found: Vec<half::bf16> = host.flatten_all().unwrap().to_vec1().unwrap();
            let rounded = values(&tensor).into_iter().map(|x| half::bf16::from_f32(x as f32));
            assert_eq!(found, rounded.collect::<Vec<_>>(), "{}", param.name());
        }
    };
    check();
    pass(&params, 1);
    DEVICE.counted();
    optim::step(&params, &of_all, &step_of(ET_OPTIM_ADAMW, 1, 0, half)).unwrap();
    check();
    optim::step(&params, &of_all, &step_of(ET_OPTIM_ADAMW, 1, half, 0)).unwrap();
    optim::step(&head, &of_head, &step_of(ET_OPTIM_ADAMW, 1, 0, 0)).unwrap();
    check();
    let counted = DEVICE.counted();
    assert_eq!((counted.get("narrow"), counted["copy written along"]), (None, 3), "{counted:?}");
    params.lerp(&set(4, ET_DTYPE_F32), 0.5).unwrap();
    check();
    params.arena_view(ET_ARENA_VALUES).unwrap();
    check();
    assert_eq!(DEVICE.counted()["narrow"], 2);
}
