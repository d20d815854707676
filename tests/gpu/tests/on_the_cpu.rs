//! `gpu-check` on the CPU engine: the comparison itself works, and can fail.

use std::process::Command;

fn check(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gpu-check"))
        .args(arguments)
        .output()
        .expect("it was just built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), format!("{text}{errors}"))
}

#[test]
fn operations_and_optimizers_agree_with_f64() {
    for what in [&["ops"][..], &["ops", "--precision", "bf16"], &["optim"]] {
        let (code, text) = check(&[what, &["--device", "cpu"]].concat());
        assert_eq!(code, 0, "{text}");
        assert!(text.matches("ok    ").count() >= 5 && !text.contains("FAILED"), "{text}");
    }
}

#[test]
fn what_cannot_run_says_so() {
    let (code, text) = check(&["ops", "--device", "cpu", "--precision", "f16"]);
    assert!(code == 2 && text.contains("precision=f16"), "{text}");
    let (code, text) = check(&["sing"]);
    assert!(code == 2, "{text}");
}
