//! What was recorded, as a Chrome trace and as a summary.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{BEGAN, DROPPED, ENDED, Event, KEPT, Key, ON, OpCall, THREADS, Total, card, now};
use crate::sync::lock;

/// Microseconds with three decimals, as the format wants them.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Shapes as text: `[4096,384] [1536,384] [1536]`.
fn shapes(call: &OpCall) -> String {
    let mut text = String::new();
    for shape in call.shapes() {
        let extents: Vec<String> = shape.iter().map(u32::to_string).collect();
        // Writing to a string cannot fail.
        let _ = write!(text, "{}[{}]", if text.is_empty() { "" } else { " " }, extents.join(","));
    }
    text
}

fn line(event: &Event, thread: usize, began: u64, times: &[card::Times<'_>]) -> Value {
    let mut args = serde_json::Map::new();
    if let Some(call) = event.call.as_deref().filter(|call| !call.dims.is_empty()) {
        args.insert("shapes".into(), shapes(call).into());
    }
    if event.flop > 0.0 {
        args.insert("flop".into(), event.flop.into());
        if event.duration > 0 {
            args.insert("gflops".into(), rate(event.flop, event.duration).into());
        }
    }
    if let Some(times) = event.timed.and_then(|timed| times.get(timed)) {
        args.insert("card_us".into(), (times.whole * 1000.0).into());
    }
    for (key, value) in &event.notes {
        args.insert(key.clone().into_owned(), json!(value));
    }
    json!({
        "name": event.name, "cat": event.category, "ph": "X", "ts": micros(event.start.saturating_sub(began)),
        "dur": micros(event.duration), "pid": 1, "tid": thread, "args": args,
    })
}

/// Operations per nanosecond, which is GFLOP/s, to two decimals.
fn rate(flop: f64, nanos: u64) -> f64 {
    (flop / nanos as f64 * 100.0).round() / 100.0
}

/// The recording as the JSON array of the Trace Event Format, which chrome://tracing and Perfetto read: complete
/// events in the order of their begin with `args` shapes, flop, gflops and on a card `card_us`, and a name for each
/// thread.
pub fn trace() -> Vec<u8> {
    let threads = lock(&THREADS);
    let began = BEGAN.load(Ordering::SeqCst);
    let mut out = b"[".to_vec();
    for thread in threads.iter() {
        let data = &mut *lock(&thread.data);
        if data.events.is_empty() {
            continue;
        }
        // An outer event that begins with an inner one comes first.
        data.events.sort_by_key(|event| (event.start, std::cmp::Reverse(event.duration)));
        let name = if thread.thread.is_empty() {
            format!("thread {}", thread.number)
        } else {
            thread.thread.clone()
        };
        let named = json!({
            "name": "thread_name", "ph": "M", "pid": 1, "tid": thread.number, "args": {"name": name},
        });
        let times = data.timed.times(card::between);
        let lines = data.events.iter().map(|event| line(event, thread.number, began, &times));
        for value in std::iter::once(named).chain(lines) {
            out.extend_from_slice(if out.len() > 1 { b",\n" } else { b"\n" });
            // A value of maps, texts and finite numbers always has a text.
            out.extend_from_slice(value.to_string().as_bytes());
        }
    }
    out.extend_from_slice(b"\n]\n");
    out
}

/// The recording in sums, as JSON: `seconds`, `events` (kept), `dropped`, and `ops`, an array by falling own time of
/// `name`, `category`, `calls`, `self_ms` (without what ran inside), `total_ms` and `flop`, and where a card computes
/// its own time `card_ms`. Sums hold what the trace had to drop too.
pub fn summary() -> Value {
    let mut sums: BTreeMap<Key, Total> = BTreeMap::new();
    for thread in lock(&THREADS).iter() {
        let data = lock(&thread.data);
        for times in data.timed.times(card::between) {
            sums.entry(times.key.clone()).or_default().card += times.own;
        }
        for (key, total) in &data.totals {
            let sum = sums.entry(key.clone()).or_default();
            sum.calls += total.calls;
            sum.own += total.own;
            sum.whole += total.whole;
            sum.flop += total.flop;
        }
    }
    let mut sums: Vec<(Key, Total)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, total)| std::cmp::Reverse(total.own));
    let ops: Vec<Value> = sums
        .into_iter()
        .map(|(key, total)| {
            let detail: Vec<String> = key.detail.iter().map(u32::to_string).collect();
            let name = if detail.is_empty() {
                key.name.into_owned()
            } else {
                format!("{} {}", key.name, detail.join("x"))
            };
            let mut line = json!({
                "name": name, "category": key.category, "calls": total.calls,
                "self_ms": total.own as f64 / 1e6, "total_ms": total.whole as f64 / 1e6, "flop": total.flop,
            });
            if total.card > 0.0 {
                line["card_ms"] = json!(total.card);
            }
            line
        })
        .collect();
    let end = if ON.load(Ordering::SeqCst) { now() } else { ENDED.load(Ordering::SeqCst) };
    json!({
        "seconds": end.saturating_sub(BEGAN.load(Ordering::SeqCst)) as f64 / 1e9,
        "events": KEPT.load(Ordering::SeqCst), "dropped": DROPPED.load(Ordering::SeqCst), "ops": ops,
    })
}
