//! `test`: what CI runs. Builds once in the release profile, stages the plugins, builds the C and C++ programs, then
//! runs all tests (those of the C hosts run under valgrind too). The last line is `N passed, N failed`, over all
//! stages.
//!
//! A stage that cannot run says so. The tests find the built files through `ET_STAGED` (folder of the release build,
//! with `plugins/`, `hosts/c/` and `hosts/cpp/`) and the shared data through `ET_SHARED`.

use crate::{
    Context, Failure, cmake, engine, licences, names,
    process::{self, cargo, has},
    programs, stage,
    tally::Tally,
};
use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

/// Runs all stages. Errors: none of its own when tests failed (the last line says how many), the text is then empty.
pub fn run(context: &Context) -> Result<(), Failure> {
    let mut run = Run { context, tally: Tally::default(), is_ci: is_ci() };
    run.stage("tools", Run::tools);
    run.stage("shared data", Run::shared);
    run.stage("licences", |run| licences::run(run.context));
    run.stage("banned crates", |run| licences::bans(run.context));
    run.stage("names of types", |run| names::run(run.context));
    if run.stage("build", Run::build) && run.stage("stage plugins", |run| stage::run(run.context)) {
        run.stage("build C and C++ programs", Run::programs);
    }
    run.stage("CUDA kernels", Run::kernels);
    run.stage("tests", Run::tests);
    println!("{}", run.tally.line());
    if run.tally.failed == 0 { Ok(()) } else { Err(Failure(String::new())) }
}

struct Run<'a> {
    context: &'a Context,
    tally: Tally,
    is_ci: bool,
}

/// Whether this is a run of CI, where what cannot run is a failure.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Folder of the shared data: `ET_SHARED`, else `../shared` beside the workspace.
fn shared(context: &Context) -> PathBuf {
    let given = env::var_os("ET_SHARED").map(PathBuf::from);
    context.root.join(given.unwrap_or_else(|| PathBuf::from("../shared")))
}

impl Run<'_> {
    /// Runs a stage, prints its time, and counts an error as one failed test. Returns whether there was none.
    fn stage(&mut self, name: &str, body: fn(&mut Self) -> Result<(), Failure>) -> bool {
        println!("== {name}");
        let start = Instant::now();
        let result = body(self);
        if let Err(failure) = &result {
            println!("error: {failure}");
            self.tally.failed += 1;
        }
        println!("== {name}: {:.1} s", start.elapsed().as_secs_f64());
        result.is_ok()
    }

    fn skip(&mut self, what: &str, why: &str) {
        println!("not run: {what}: {why}");
        self.tally.skipped += 1;
    }

    /// In CI, as root, installs the compilers, make, pkg-config and valgrind where they are missing; fetches CMake
    /// where there is none.
    fn tools(&mut self) -> Result<(), Failure> {
        self.packages();
        match cmake::fetched(self.context) {
            Ok(_) => Ok(()),
            Err(failure) if self.is_ci => Err(failure),
            Err(failure) => {
                self.skip("the test of a CMake project", &failure.0);
                Ok(())
            }
        }
    }

    fn packages(&self) {
        // Each package is called like its program.
        let tools = ["gcc", "g++", "clang", "make", "valgrind", "pkg-config"];
        let missing: Vec<&str> = tools.into_iter().filter(|tool| !has(tool)).collect();
        if missing.is_empty() {
            return;
        }
        println!("missing: {}", missing.join(", "));
        let is_root =
            process::output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim() == "0");
        if self.is_ci && is_root {
            // Not being able to install is not a failure here: the stages that need the tools say so themselves.
            let update = process::output(Command::new("apt-get").args(["update", "-qq"]));
            if let Err(failure) = update.and_then(|_| {
                let arguments = ["install", "-y", "-qq", "--no-install-recommends"];
                process::output(Command::new("apt-get").args(arguments).args(&missing))
            }) {
                println!("could not install them: {failure}");
            }
        }
    }

    fn shared(&mut self) -> Result<(), Failure> {
        let folder = shared(self.context);
        if folder.join("models").is_dir() {
            return Ok(());
        }
        let what = format!("no folder `models` in {}, set ET_SHARED", folder.display());
        if self.is_ci {
            return Err(Failure(what));
        }
        self.skip("tests that need the shared data", &what);
        Ok(())
    }

    fn build(&mut self) -> Result<(), Failure> {
        process::show(&mut cargo(self.context, ["build", "--release", "--workspace"]))?;
        let arguments = ["test", "--release", "--workspace", "--no-run", "--quiet"];
        process::show(&mut cargo(self.context, arguments))
    }

    fn programs(&mut self) -> Result<(), Failure> {
        for language in programs::LANGUAGES {
            if !has(language.compiler) {
                self.skip(language.folder, &format!("{} is not installed", language.compiler));
                continue;
            }
            for source in programs::sources(self.context, &language) {
                let built = programs::build(self.context, &language, &source);
                if let Err(failure) = &built {
                    println!("error: {failure}");
                }
                self.tally.add(built.is_ok());
            }
        }
        Ok(())
    }

    /// Compiles the kernels of the CUDA engine where there is a toolkit, where ET_CUDA_TOOLKIT=fetch says to get one,
    /// and in CI where one can be fetched.
    fn kernels(&mut self) -> Result<(), Failure> {
        const WHAT: &str = "CUDA kernels";
        let compiler = engine::Compiler::here(self.context, self.is_ci);
        match compiler {
            None => {
                self.skip(WHAT, "no nvcc; ET_CUDA_TOOLKIT=fetch fetches one");
                return Ok(());
            }
            Some(engine::Compiler::Try) => {
                if let Err(failure) = engine::fetch_compiler(self.context) {
                    self.skip(WHAT, &format!("no nvcc, and it could not be fetched: {failure}"));
                    return Ok(());
                }
            }
            Some(engine::Compiler::Found | engine::Compiler::Fetch) => {}
        }
        engine::kernels(self.context, matches!(compiler, Some(engine::Compiler::Fetch)))?;
        self.tally.add(true);
        Ok(())
    }

    fn tests(&mut self) -> Result<(), Failure> {
        let arguments = ["test", "--release", "--workspace", "--no-fail-fast"];
        let mut command = cargo(self.context, arguments);
        command.env("ET_STAGED", process::release(self.context)).stdout(Stdio::piped());
        if shared(self.context).is_dir() {
            command.env("ET_SHARED", shared(self.context));
        }
        let mut child = command
            .spawn()
            .map_err(|error| Failure(format!("cargo test does not start: {error}")))?;
        let before = self.tally.failed;
        for line in BufReader::new(child.stdout.take().ok_or_else(no_output)?).lines() {
            let line = line.map_err(|error| Failure(format!("read cargo test: {error}")))?;
            println!("{line}");
            self.tally.add_line(&line);
        }
        let status = child.wait().map_err(|error| Failure(format!("cargo test: {error}")))?;
        // A test program that died or did not compile has no result line.
        if !status.success() && self.tally.failed == before {
            return Err(Failure(format!("cargo test: {status}")));
        }
        Ok(())
    }
}

fn no_output() -> Failure {
    Failure("cargo test has no output to read".to_owned())
}
