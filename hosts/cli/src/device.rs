//! `easytransfer device`: what can compute here. This build computes on the CPU.

use std::path::PathBuf;

use clap::Subcommand;
use easytransfer::{Error, Result};

use crate::print;

/// Show what can compute here.
#[derive(Subcommand)]
pub enum Device {
    /// List devices
    List,
}

impl Device {
    pub fn run(self) -> Result<()> {
        let Device::List = self;
        let threads = std::env::var("RAYON_NUM_THREADS")
            .ok()
            .and_then(|threads| threads.parse::<usize>().ok())
            .filter(|&threads| threads > 0)
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1);
        let sets = instruction_sets();
        let sets = if sets.is_empty() { String::new() } else { format!(", {}", sets.join(" ")) };
        print::text(&format!("cpu\t{} {threads} threads{sets}\n", std::env::consts::ARCH))
    }
}

/// The instruction sets of this processor that matter for kernels.
fn instruction_sets() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        let known = [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
            ("avx512vl", std::is_x86_feature_detected!("avx512vl")),
            ("avx512vnni", std::is_x86_feature_detected!("avx512vnni")),
            ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ];
        known.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Vec::new()
    }
}

/// Checks that a device of this name is there. Errors: it is not, with the places that were searched for its engine.
pub fn require(name: &str) -> Result<()> {
    if matches!(name, "cpu" | "auto") {
        return Ok(());
    }
    if name != "cuda" && !name.starts_with("cuda:") {
        return Err(Error::user(format!("--device: expected `cpu` or `auto`, found `{name}`")));
    }
    let library = "libeasytransfer_engine_cuda.so";
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_path_buf()));
    let places: Vec<PathBuf> = beside
        .into_iter()
        .flat_map(|folder| [folder.clone(), folder.join("../lib/easytransfer")])
        .chain([PathBuf::from("/usr/lib/easytransfer")])
        .collect();
    if let Some(found) = places.iter().map(|place| place.join(library)).find(|path| path.exists()) {
        return Err(Error::user(format!(
            "--device {name}: this version opens no engine libraries, found `{}`; use `--device cpu`",
            found.display()
        )));
    }
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    Err(Error::user(format!(
        "--device {name}: expected the CUDA engine `{library}` in {}, found none; this build has no CUDA engine, use `--device cpu`",
        places.join(", ")
    )))
}
