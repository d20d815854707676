//! The profiler through its table: what is recorded, that events nest, and that it is off unless started. One
//! recording per process, so all of it is one test.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block calls a slot of the engine's table with live handles"
)]

mod boundary;

use std::ptr;

use boundary::{drop_tensor, make, no_leaks, ok, table, tensor, text};
use easytransfer_abi::*;
use easytransfer_core::data::Buffer;
use easytransfer_core::handle;
use serde_json::Value;

fn json(call: Option<unsafe extern "C" fn(*mut *mut et_buffer) -> *mut et_error>) -> Value {
    // SAFETY: the slot is filled; the buffer is owned and released once.
    unsafe {
        let buffer = make(|out| call.unwrap()(out));
        let bytes = handle::borrow::<Buffer>(buffer).unwrap().bytes().to_vec();
        handle::release::<Buffer>(buffer);
        serde_json::from_slice(&bytes).expect("JSON")
    }
}

/// A linear layer of 5 rows on leaves, its sum, and the way back.
fn layer() {
    let (t, a, n) = (
        table::<et_host_tensor>(c"et.tensor/1"),
        table::<et_host_autograd>(c"et.autograd/1"),
        table::<et_host_nn>(c"et.nn/1"),
    );
    let plain =
        [tensor(&[0.5; 20], &[5, 4]), tensor(&[0.25; 12], &[3, 4]), tensor(&[0.1; 3], &[3])];
    // SAFETY: filled slots, live handles, each released once.
    unsafe {
        let leaves = plain.map(|x| make(|out| a.leaf.unwrap()(x, out)));
        let y =
            make(|out| n.linear.unwrap()(leaves[0], leaves[1], leaves[2], ET_ACTIVATION_GELU, out));
        let sum = make(|out| t.reduce.unwrap()(ET_REDUCE_SUM, y, ptr::null(), 0, 0, out));
        ok(a.backward.unwrap()(sum, ptr::null()));
        plain.into_iter().chain(leaves).chain([y, sum]).for_each(drop_tensor);
    }
}

/// The complete events of a trace.
fn events(trace: &Value) -> Vec<&Value> {
    let all = trace.as_array().expect("an array").iter();
    all.filter(|event| event["ph"] == "X").collect()
}

fn find<'a>(events: &[&'a Value], category: &str, name: &str) -> &'a Value {
    events
        .iter()
        .find(|event| event["cat"] == category && event["name"] == name)
        .unwrap_or_else(|| panic!("no {category} {name} in {events:?}"))
}

fn span_of(event: &Value) -> (f64, f64) {
    let begin = event["ts"].as_f64().expect("ts");
    (begin, begin + event["dur"].as_f64().expect("dur"))
}

#[test]
fn recordings_hold_operations_with_shapes_and_nothing_while_off() {
    let _leaks = no_leaks();
    let p = table::<et_host_profile>(c"et.profile/1");
    // SAFETY: filled slots and readable texts, here and below.
    let begin = |name: &str| unsafe { p.begin.unwrap()(text("test"), text(name)) };
    let end = |span| unsafe { p.end.unwrap()(span) };

    // Off: nothing is recorded, spans have no number.
    assert_eq!(unsafe { p.is_on.unwrap()() }, 0);
    assert_eq!(begin("unseen"), 0);
    layer();
    assert!(events(&json(p.trace)).is_empty());

    // On.
    unsafe { p.start.unwrap()(0) };
    assert_eq!(unsafe { p.is_on.unwrap()() }, 1);
    let outer = begin("outer");
    assert_ne!(outer, 0);
    unsafe { p.note.unwrap()(outer, text("rows"), 5.0) };
    layer();
    begin("left open");
    end(outer);
    std::thread::spawn(layer).join().unwrap();
    unsafe { p.stop.unwrap()() };
    layer();
    let trace = json(p.trace);
    let all = events(&trace);
    // Twice: linear, sum, backward, and both again on the way back; and two spans of the test.
    assert_eq!(all.len(), 2 * 5 + 2, "{all:?}");
    let linear = find(&all, "forward", "linear");
    assert_eq!(linear["args"]["shapes"], "[5,4] [3,4] [3]");
    assert_eq!(linear["args"]["flop"], 2.0 * 5.0 * 4.0 * 3.0);
    assert!(linear["args"]["gflops"].as_f64().is_some_and(|rate| rate >= 0.0));
    let back = find(&all, "backward", "linear");
    assert_eq!(back["args"]["flop"], 2.0 * 2.0 * 5.0 * 4.0 * 3.0);
    assert_eq!(back["args"]["shapes"], linear["args"]["shapes"]);
    assert_eq!(find(&all, "forward", "sum")["args"]["shapes"], "[5,3]");
    assert_eq!(find(&all, "test", "outer")["args"]["rows"], 5.0);
    find(&all, "test", "left open");

    // Two threads, and on each events lie inside one another or apart; times are whole nanoseconds in decimal
    // microseconds.
    let half = 5e-4;
    let threads: std::collections::BTreeSet<u64> =
        all.iter().map(|event| event["tid"].as_u64().expect("tid")).collect();
    assert_eq!(threads.len(), 2);
    for thread in threads {
        let mut open: Vec<(f64, f64)> = Vec::new();
        for event in all.iter().filter(|event| event["tid"] == thread) {
            let (begin, end) = span_of(event);
            while open.last().is_some_and(|&(_, outer)| outer <= begin + half) {
                open.pop();
            }
            assert!(open.last().is_none_or(|&(_, outer)| end <= outer + half), "{event}");
            open.push((begin, end));
        }
    }
    let (outer, inner) = (span_of(find(&all, "test", "outer")), span_of(linear));
    assert!(outer.0 <= inner.0 + half && inner.1 <= outer.1 + half);
    let (pass, inner) = (span_of(find(&all, "engine", "backward")), span_of(back));
    assert!(pass.0 <= inner.0 + half && inner.1 <= pass.1 + half);

    // Sums: layers are told apart by their weight, and own time is without what ran inside.
    let sums = json(p.summary);
    assert_eq!((&sums["events"], &sums["dropped"]), (&Value::from(12), &Value::from(0)));
    let ops = sums["ops"].as_array().expect("ops");
    let sum = |category: &str, name: &str| {
        ops.iter().find(|op| op["category"] == category && op["name"] == name).expect("a sum")
    };
    assert_eq!(sum("forward", "linear 3x4")["calls"], 2);
    let pass = sum("engine", "backward");
    assert!(pass["self_ms"].as_f64() < pass["total_ms"].as_f64());

    // A full recording drops events and counts them; the sums stay whole. Earlier events are forgotten.
    unsafe { p.start.unwrap()(3) };
    layer();
    unsafe { p.stop.unwrap()() };
    let (trace, sums) = (json(p.trace), json(p.summary));
    assert_eq!(events(&trace).len(), 3);
    assert_eq!((&sums["events"], &sums["dropped"]), (&Value::from(3), &Value::from(2)));
    let calls: u64 =
        sums["ops"].as_array().expect("ops").iter().filter_map(|op| op["calls"].as_u64()).sum();
    assert_eq!(calls, 5);
}
