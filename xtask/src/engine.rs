//! `engine cuda` and `engine kernels`: the library of the CUDA engine, and its kernels alone.
//!
//! Both need an nvcc. It is looked for in CUDA_HOME, CUDA_PATH and CUDA_ROOT, in PATH, in `target/cuda-toolkit` and
//! in /usr/local/cuda; with `--fetch-toolkit` the compiler's wheels are fetched from PyPI into `target/cuda-toolkit`.
//! No card and no driver are needed.

use crate::{
    Context, Failure,
    process::{self, cargo},
};
use sha2::{Digest, Sha256};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The wheels that make up a compiler, as pip names them.
const COMPILER: [&str; 5] = [
    "nvidia-cuda-nvcc==13.0.*",
    "nvidia-cuda-crt==13.0.*",
    "nvidia-nvvm==13.0.*",
    "nvidia-cuda-runtime==13.0.*",
    "nvidia-cuda-cccl==13.0.*",
];

/// What candle needs besides.
const LIBRARIES: [&str; 2] = ["nvidia-cuda-nvrtc==13.0.*", "nvidia-curand==10.4.0.*"];

/// Libraries that are linked against by name and found when the program runs; empty ones stand in where there are
/// none.
const LINKED: [(&str, &str); 5] = [
    ("libcuda.so", "libcuda.so.1"),
    ("libcublas.so", "libcublas.so.13"),
    ("libcublasLt.so", "libcublasLt.so.13"),
    ("libcurand.so", "libcurand.so.10"),
    ("libnvrtc.so", "libnvrtc.so.13"),
];

/// Architectures that the kernels are compiled for.
const ARCHITECTURES: [&str; 2] = ["80", "90"];

const LIBRARY: &str = "libeasytransfer_engine_cuda.so";

/// A CUDA toolkit.
pub struct Toolkit {
    home: PathBuf,
}

fn target(context: &Context) -> PathBuf {
    // The folder above `release`.
    process::release(context)
        .parent()
        .map_or_else(|| context.root.join("target"), Path::to_path_buf)
}

fn fetched(context: &Context) -> PathBuf {
    target(context).join("cuda-toolkit")
}

/// Folders that may hold `bin/nvcc`, with the reason why they are searched.
fn homes(context: &Context) -> Vec<(String, PathBuf)> {
    let mut homes: Vec<(String, PathBuf)> = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), PathBuf::from(env::var_os(name)?))))
        .collect();
    for folder in env::var_os("PATH").iter().flat_map(env::split_paths) {
        if folder.join("nvcc").exists()
            && let Some(home) =
                folder.canonicalize().ok().and_then(|f| Some(f.parent()?.to_owned()))
        {
            homes.push(("PATH".to_owned(), home));
        }
    }
    homes.push(("fetched".to_owned(), fetched(context)));
    homes.push(("usual place".to_owned(), PathBuf::from("/usr/local/cuda")));
    homes
}

impl Toolkit {
    /// The first toolkit that is found.
    pub fn find(context: &Context) -> Option<Toolkit> {
        homes(context)
            .into_iter()
            .map(|(_, home)| home)
            .find(|home| home.join("bin/nvcc").exists())
            .map(|home| Toolkit { home })
    }

    /// [`Toolkit::find`], else fetches the wheels if `fetch` says so. Errors: all places that were searched.
    fn get(context: &Context, fetch: bool, wheels: &[&str]) -> Result<Toolkit, Failure> {
        // One that was fetched for the kernels alone lacks what the engine links against.
        let lacks =
            |home: &Path| wheels.len() > COMPILER.len() && !home.join("include/curand.h").exists();
        match Toolkit::find(context) {
            Some(toolkit)
                if !(fetch && toolkit.home == fetched(context) && lacks(&toolkit.home)) =>
            {
                return Ok(toolkit);
            }
            _ => {}
        }
        if fetch {
            return Toolkit::fetch(context, wheels);
        }
        let places: Vec<String> = homes(context)
            .iter()
            .map(|(why, home)| format!("{} ({why})", home.join("bin/nvcc").display()))
            .collect();
        Err(Failure(format!(
            "no nvcc: expected one of {}, nor is there one in PATH; install the CUDA toolkit 13, set CUDA_HOME, or add --fetch-toolkit to fetch its wheels (250 MB)",
            places.join(", ")
        )))
    }

    /// Fetches the wheels and lays them out as a toolkit. Errors: pip's.
    fn fetch(context: &Context, names: &[&str]) -> Result<Toolkit, Failure> {
        let home = fetched(context);
        let unpacked = home.join("unpacked");
        let wheels = home.join("wheels");
        let io =
            |path: &Path, error: std::io::Error| Failure(format!("{}: {error}", path.display()));
        fs::create_dir_all(&wheels).map_err(|error| io(&wheels, error))?;
        println!("fetching {}", names.join(", "));
        let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"];
        // Without a network this ends soon.
        let patience = ["--timeout", "20", "--retries", "1", "-d"];
        let mut pip = Command::new("python3");
        process::show(pip.args(download).args(patience).arg(&wheels).args(names))?;
        for entry in fs::read_dir(&wheels).map_err(|error| io(&wheels, error))?.flatten() {
            let mut unzip = Command::new("python3");
            process::show(unzip.args(["-m", "zipfile", "-e"]).arg(entry.path()).arg(&unpacked))?;
        }
        let inside = unpacked.join("nvidia/cu13");
        for entry in fs::read_dir(&inside).map_err(|error| io(&inside, error))?.flatten() {
            let to = home.join(entry.file_name());
            let _ = fs::remove_dir_all(&to);
            fs::rename(entry.path(), &to).map_err(|error| io(&to, error))?;
        }
        // The archive's programs come without the right to be run.
        process::show(
            Command::new("chmod")
                .arg("-R")
                .arg("+x")
                .args([home.join("bin"), home.join("nvvm/bin")]),
        )?;
        let _ = fs::remove_dir_all(&unpacked);
        let _ = fs::remove_dir_all(&wheels);
        Ok(Toolkit { home })
    }

    fn nvcc(&self) -> PathBuf {
        self.home.join("bin/nvcc")
    }

    /// Major and minor version, for instance (13, 0).
    fn version(&self) -> Result<(u32, u32), Failure> {
        let text = process::output(Command::new(self.nvcc()).arg("--version"))?;
        let unreadable = || {
            Failure(format!("{} --version: no `release 13.0` in {text:?}", self.nvcc().display()))
        };
        let (_, rest) = text.split_once("release ").ok_or_else(unreadable)?;
        let version = rest.split([',', ' ', '\n']).next().unwrap_or_default();
        let (major, minor) = version.split_once('.').ok_or_else(unreadable)?;
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok((major, minor)),
            _ => Err(unreadable()),
        }
    }

    /// A folder with everything that the linker asks for by name.
    fn link_folder(&self, context: &Context) -> Result<PathBuf, Failure> {
        let folder = target(context).join("cuda-link");
        let io =
            |path: &Path, error: std::io::Error| Failure(format!("{}: {error}", path.display()));
        fs::create_dir_all(&folder).map_err(|error| io(&folder, error))?;
        for (name, soname) in LINKED {
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-x", "c", "/dev/null"]);
            process::show(
                compiler.arg(format!("-Wl,-soname,{soname}")).arg("-o").arg(folder.join(name)),
            )?;
        }
        for lib in ["lib64", "lib"].map(|name| self.home.join(name)) {
            for entry in fs::read_dir(&lib).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let is_runtime = name.to_string_lossy().starts_with("libcudart.so");
                let link = folder.join("libcudart.so");
                if is_runtime && !link.exists() {
                    #[cfg(unix)]
                    std::os::unix::fs::symlink(entry.path(), &link)
                        .map_err(|error| io(&link, error))?;
                }
            }
        }
        if !folder.join("libcudart.so").exists() {
            return Err(Failure(format!(
                "no libcudart.so in {}/lib64 or lib: install nvidia-cuda-runtime there",
                self.home.display()
            )));
        }
        Ok(folder)
    }
}

/// Builds the engine's library and puts it beside the command. Errors: no nvcc, with the places that were searched.
pub fn run(context: &Context, fetch: bool) -> Result<(), Failure> {
    let toolkit = Toolkit::get(context, fetch, &[&COMPILER[..], &LIBRARIES].concat())?;
    let (major, minor) = toolkit.version()?;
    println!("CUDA {major}.{minor} in {}", toolkit.home.display());
    let link = toolkit.link_folder(context)?;
    // A target folder of its own: the default build is not touched, and candle's kernels are compiled once.
    let build = target(context).join("cuda");
    let mut path = vec![toolkit.home.join("bin")];
    path.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    let path = env::join_paths(path).map_err(|error| Failure(format!("PATH: {error}")))?;
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(&format!(" -L native={}", link.display()));
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| ARCHITECTURES[0].to_owned());
    let arguments = ["build", "--release", "-p", "easytransfer-engine", "--features", "cuda"];
    let mut command = cargo(context, arguments);
    command
        .arg("--target-dir")
        .arg(&build)
        .env("CUDA_HOME", &toolkit.home)
        .env("CUDA_COMPUTE_CAP", capability)
        .env("CUDARC_CUDA_VERSION", format!("{major}0{minor}0"))
        .env("RUSTFLAGS", flags.trim())
        .env("PATH", path);
    process::show(&mut command)?;
    let built = build.join("release/libeasytransfer_engine.so");
    let place = process::release(context).join(LIBRARY);
    let beside = place.with_extension("so.new");
    fs::create_dir_all(process::release(context))
        .and_then(|()| fs::copy(&built, &beside))
        .and_then(|_| fs::rename(&beside, &place))
        .map_err(|error| Failure(format!("write {}: {error}", place.display())))?;
    println!("built {}", process::shown(context, &place));
    Ok(())
}

/// Compiles the kernels alone for every architecture, and the PTX of the templates, so that they cannot rot where
/// nobody builds the engine. Skips what has not changed since it last compiled.
pub fn kernels(context: &Context, fetch: bool) -> Result<(), Failure> {
    let toolkit = Toolkit::get(context, fetch, &COMPILER)?;
    let folder = context.root.join("sdk/cuda/kernels");
    let out = target(context).join("cuda-kernels");
    let io = |path: &Path, error: std::io::Error| Failure(format!("{}: {error}", path.display()));
    fs::create_dir_all(&out).map_err(|error| io(&out, error))?;
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|error| io(&folder, error))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut headers = Sha256::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "cuh")) {
        headers.update(fs::read(file).map_err(|error| io(file, error))?);
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "cu")) {
        let mut hash = headers.clone();
        hash.update(fs::read(file).map_err(|error| io(file, error))?);
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let done = out.join(format!("{name}.sha256"));
        if fs::read_to_string(&done).is_ok_and(|known| known == hash) {
            println!("kernels {name}: unchanged");
            continue;
        }
        let mut command = Command::new(toolkit.nvcc());
        command.args(["-std=c++17", "-O3", "-fatbin", "-Werror", "all-warnings", "--threads=2"]);
        for architecture in ARCHITECTURES {
            let code = format!("arch=compute_{architecture},code=sm_{architecture}");
            command.args(["-gencode", &code]);
        }
        command.arg(file).arg("-o").arg(out.join(format!("{name}.fatbin")));
        process::show(&mut command)?;
        fs::write(&done, hash).map_err(|error| io(&done, error))?;
        println!("kernels {name}: compiled for sm_{}", ARCHITECTURES.join(" and sm_"));
    }
    for architecture in ARCHITECTURES {
        let mut assembler = Command::new(toolkit.home.join("bin/ptxas"));
        assembler.arg(format!("-arch=sm_{architecture}"));
        assembler.arg(context.root.join("sdk/scaffold/templates/op.ptx"));
        process::show(assembler.arg("-o").arg(out.join("op.cubin")))?;
    }
    println!("kernel of the template for operations: assembled");
    Ok(())
}

/// How `test` comes to a compiler for the kernels.
pub enum Compiler {
    /// There is one.
    Found,
    /// `ET_CUDA_TOOLKIT=fetch`: it has to be fetched.
    Fetch,
    /// CI tries to fetch one, and does without where that fails.
    Try,
}

impl Compiler {
    /// The way here; `None` without one. `ET_CUDA_TOOLKIT=none` keeps CI from trying.
    pub fn here(context: &Context, is_ci: bool) -> Option<Compiler> {
        let wish = env::var("ET_CUDA_TOOLKIT").unwrap_or_default();
        if Toolkit::find(context).is_some() {
            Some(Compiler::Found)
        } else if wish == "fetch" {
            Some(Compiler::Fetch)
        } else if is_ci && wish != "none" && has_pip() {
            Some(Compiler::Try)
        } else {
            None
        }
    }
}

fn has_pip() -> bool {
    process::output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok()
}

/// Fetches the compiler alone. Errors: pip's.
pub fn fetch_compiler(context: &Context) -> Result<(), Failure> {
    Toolkit::fetch(context, &COMPILER).map(|_| ())
}
