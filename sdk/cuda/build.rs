//! With the feature `cuda`, compiles `kernels/*.cu` to one fat binary each: machine code for sm_80 and sm_90, and PTX
//! for what comes later. Without the feature it does nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders below CUDA_HOME (or its other names) where nvcc is.
const HOMES: [&str; 3] = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"];

fn nvcc() -> PathBuf {
    HOMES
        .iter()
        .filter_map(env::var_os)
        .map(|home| Path::new(&home).join("bin/nvcc"))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("nvcc"))
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=kernels");
    for home in HOMES {
        println!("cargo::rerun-if-env-changed={home}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by Cargo"));
    let kernels = Path::new("kernels");
    let nvcc = nvcc();
    let mut files: Vec<PathBuf> = std::fs::read_dir(kernels)
        .expect("read kernels")
        .map(|entry| entry.expect("read kernels").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    files.sort();
    for file in files {
        let target = out.join(file.file_stem().unwrap_or_default()).with_extension("fatbin");
        let status = Command::new(&nvcc)
            .args(["-std=c++17", "-O3", "-fatbin", "--threads=2"])
            .args(["-gencode", "arch=compute_80,code=sm_80"])
            .args(["-gencode", "arch=compute_90,code=[sm_90,compute_90]"])
            .arg(&file)
            .arg("-o")
            .arg(&target)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => panic!("{}: {}: {status}", nvcc.display(), file.display()),
            Err(error) => panic!(
                "{} does not start: {error}; set CUDA_HOME, or run `cargo xtask engine cuda`",
                nvcc.display()
            ),
        }
    }
}
