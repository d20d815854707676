//! `easytransfer device`: what can compute here.

use std::fmt::Write;

use clap::Subcommand;
use easytransfer::{Device as Chosen, Driver, Result, engine_places};

use crate::print;
use crate::spoken::spoken;

/// Show what can compute here.
#[derive(Subcommand)]
pub enum DeviceCommand {
    /// List devices: the processor, the cards that the driver finds, and the engine that computes on them
    List,
}

impl DeviceCommand {
    pub fn run(self) -> Result<()> {
        let DeviceCommand::List = self;
        let threads = std::env::var("RAYON_NUM_THREADS")
            .ok()
            .and_then(|threads| threads.parse::<usize>().ok())
            .filter(|&threads| threads > 0)
            .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
            .unwrap_or(1);
        let sets = instruction_sets();
        let sets = if sets.is_empty() { String::new() } else { format!(", {}", sets.join(" ")) };
        let mut text = format!("cpu\t{} {threads} threads{sets}\n", std::env::consts::ARCH);
        text.push_str(&cards());
        print::text(&text)
    }
}

/// One line per card, or one that says what is missing.
fn cards() -> String {
    let driver = match Driver::open() {
        Ok(driver) => driver,
        Err(error) => return format!("cuda\tnot usable: {}\n", spoken(&error.to_string())),
    };
    let mut text = String::new();
    for card in &driver.cards {
        let gib = card.memory as f64 / f64::from(1u32 << 30);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "cuda:{}\t{}, {gib:.0} GiB, compute capability {}.{}, driver for CUDA {}.{}",
            card.number,
            card.name,
            card.capability.0,
            card.capability.1,
            driver.version.0,
            driver.version.1
        );
    }
    let places = engine_places();
    let _ = match places.iter().find(|place| place.exists()) {
        Some(found) => writeln!(text, "engine\t{}", found.display()),
        None => {
            let places: Vec<String> =
                places.iter().map(|place| format!("`{}`", place.display())).collect();
            writeln!(
                text,
                "engine\tnot usable: no usable CUDA engine: expected one of {}",
                places.join(", ")
            )
        }
    };
    text
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

/// The device that the command line names. Without a name the best that is there.
pub fn parse(name: &str) -> std::result::Result<Chosen, String> {
    name.parse()
}
