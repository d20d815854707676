//! The engine's threads and those of the program: each case runs in a process of its own, because a process has one
//! engine and one global pool of rayon's. A child that does not come to its end is a failure.

use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use easytransfer::json::runtime_options;
use easytransfer::{EmbedOptions, Runtime, RuntimeOptions};
use easytransfer_core::workers;
use easytransfer_tests::face::{Face, RustFace};
use easytransfer_tests::hosts::{Scratch, build_program, command, run};
use easytransfer_tests::{linked, places};
use rayon::prelude::*;
use serde_json::json;

/// Names the case in the environment of a child.
const CASE: &str = "ET_TEST_CASE";
/// After so long a child hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// This test program once more, for one case.
fn start(case: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_case_of_a_child", "--nocapture"])
        .env(CASE, case)
        .env_remove("RAYON_NUM_THREADS")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for a child, which must end well.
fn finish(mut child: Child, what: &str) {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{what}: {status}");
            return;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what}: hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a child does; nothing without a case.
#[test]
fn the_case_of_a_child() {
    match std::env::var(CASE).as_deref() {
        Ok("lock") => predict_under_a_lock(),
        Ok("threads") => choose_threads(),
        Ok("one") => one_thread(),
        Ok(other) => panic!("no case {other}"),
        Err(_) => {}
    }
}

/// Eight threads of rayon's global pool; each takes a lock and asks for vectors while it holds it.
fn predict_under_a_lock() {
    rayon::ThreadPoolBuilder::new().num_threads(8).build_global().unwrap();
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    let embedder = linked::runtime().embedder(&encoder, EmbedOptions::default()).unwrap();
    let text = "where is my parcel ".repeat(8);
    let sum = Mutex::new(0.0);
    (0..16).into_par_iter().for_each(|task| {
        let mut sum = sum.lock().unwrap();
        // One text, and several that fill a batch: the team, products, and packing on the way.
        let texts = vec![text.as_str(); 1 + task % 2 * 2];
        *sum += embedder.embed(&texts).unwrap()[0];
    });
    assert!(sum.into_inner().unwrap() != 0.0);
}

#[test]
fn a_program_may_predict_in_its_own_pool_while_it_holds_a_lock() {
    for run in 0..16 {
        finish(start("lock"), &format!("run {run} of 16"));
    }
}

fn with_threads(threads: Option<usize>) -> Result<Runtime, String> {
    let options = RuntimeOptions { only_these: true, threads, ..RuntimeOptions::default() };
    Runtime::new(options).map_err(|error| error.to_string())
}

/// The first runtime decides; others agree or are refused, and nothing of rayon's global pool is started.
fn choose_threads() {
    for wrong in [0, 1025] {
        let error = with_threads(Some(wrong)).err().unwrap();
        assert_eq!(error, format!("threads: expected 1 to 1024, found {wrong}"));
    }
    with_threads(Some(3)).unwrap();
    assert_eq!(workers::count(), 3);
    with_threads(Some(3)).unwrap();
    with_threads(None).unwrap();
    let error = with_threads(Some(2)).err().unwrap();
    for needle in ["threads: expected 3", "found 2", "first runtime"] {
        assert!(error.contains(needle), "{error}");
    }
    let runtime = Runtime::new(runtime_options(r#"{"threads": 3}"#).unwrap()).unwrap();
    runtime.plugins();
    // Nobody has started the program's pool, so it may still decide on it.
    rayon::ThreadPoolBuilder::new().num_threads(5).build_global().unwrap();
}

/// With one thread all work is done by the thread that asks.
fn one_thread() {
    with_threads(Some(1)).unwrap();
    let encoder = places::shared().join("models/all-MiniLM-L6-v2");
    let embedder = linked::runtime().embedder(&encoder, EmbedOptions::default()).unwrap();
    let texts = ["where is my parcel", "refund please", "never again"];
    let vectors = embedder.embed(&texts).unwrap();
    std::thread::scope(|scope| {
        let again: Vec<_> =
            (0..4).map(|_| scope.spawn(|| embedder.embed(&texts).unwrap())).collect();
        again.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), vectors));
    });
}

#[test]
fn the_first_runtime_decides_on_the_threads() {
    finish(start("threads"), "threads");
    finish(start("one"), "one thread");
}

#[test]
fn threads_are_checked_as_json() {
    assert_eq!(runtime_options(r#"{"threads": 2}"#).unwrap().threads, Some(2));
    assert_eq!(runtime_options("{}").unwrap().threads, None);
    for wrong in [r#"{"threads": 0}"#, r#"{"threads": 2000}"#, r#"{"threads": "two"}"#] {
        let error = runtime_options(wrong).unwrap_err().to_string();
        assert!(error.contains("threads"), "{error}");
    }
}

/// Many C++ threads on one app and one embedder, and apps that are released while threads are in them.
#[test]
fn a_service_in_cpp_shares_what_it_has_among_its_threads() {
    let scratch = Scratch::new("threads-cpp");
    let demo = places::root().join("hosts/demo");
    let bundle = scratch.path().join("bundle");
    let config = json!({ "epochs": 1, "lr": 1e-3, "max_steps": 4, "seed": 3 });
    let (train, valid) = (demo.join("messages.train.tsv"), demo.join("messages.dev.tsv"));
    let face = RustFace(linked::runtime());
    face.fit(&demo.join("encoder"), &train, &valid, &bundle, &config).unwrap();
    let program = scratch.path().join("threads");
    let source = places::root().join("tests/suite/tests/hosts/threads.cpp");
    build_program(&scratch, &source, &program);
    let mut command = command(&program, &[]);
    run(command.arg(&bundle).arg(&bundle), b"").good("threads in C++");
}
