//! `cargo run --release -p easytransfer-bench --bin startup -- BUNDLE`: from process start to the answer for one
//! text, by the command.

use easytransfer_bench::median;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() {
    let bundle = std::env::args().nth(1).expect("usage: startup BUNDLE");
    let program = std::env::current_exe().expect("a path").with_file_name("easytransfer");
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        let mut child = Command::new(&program)
            .args(["predict", "--model", &bundle])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("easytransfer starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"{\"text\": \"a gripping film\"}\n").expect("the pipe is open");
        drop(stdin);
        let output = child.wait_with_output().expect("easytransfer ends");
        assert!(output.status.success());
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "process start to answer, ms: median {:.0}, fastest {:.0}, slowest {:.0} (21 runs)",
        median(times.clone()),
        times[0],
        times[times.len() - 1]
    );
}
