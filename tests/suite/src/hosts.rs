//! The programs in `hosts/`: built against the headers and the staged library, and run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::places;

/// A folder that goes when the test is done.
pub struct Scratch(PathBuf);

impl Scratch {
    /// An empty folder of this process among the temporary ones.
    pub fn new(name: &str) -> Scratch {
        let own = format!("easytransfer-{name}-{}", std::process::id());
        Scratch::within(&std::env::temp_dir(), &own)
    }

    /// An empty folder in `place`, for instance `env!("CARGO_TARGET_TMPDIR")`: where a static one, which is never
    /// dropped, may stay.
    pub fn within(place: &Path, name: &str) -> Scratch {
        let path = place.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("make scratch folder");
        Scratch(path)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a program left behind.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code, -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a program that ended well; panics with its messages when it did not.
    pub fn good(self, what: &str) -> String {
        assert_eq!(self.code, 0, "{what}: {}{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command with `input` on standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("standard input was piped");
    let input = input.to_vec();
    // A program that ends early does not read its input, which is no failure of the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("the input was written");
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a program can be run here.
pub fn has(program: &str) -> bool {
    let quiet = || Stdio::null();
    Command::new(program).arg("--version").stdout(quiet()).stderr(quiet()).status().is_ok()
}

/// The shared library under the names that the linker and the loader look for.
pub fn library_folder(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path().join("lib");
    let library = places::staged().join("libeasytransfer.so");
    assert!(library.exists(), "{}: build easytransfer-capi first", library.display());
    let library = fs::canonicalize(library).expect("the library was found");
    fs::create_dir_all(&folder).expect("make folder of the library");
    for name in ["libeasytransfer.so", "libeasytransfer.so.0"] {
        if !folder.join(name).exists() {
            std::os::unix::fs::symlink(&library, folder.join(name)).expect("link the library");
        }
    }
    folder
}

/// Flags under which all C and C++ of the tree compiles, for a compiler of either.
pub fn strict(compiler: &str) -> impl Iterator<Item = &'static str> {
    let both = ["-Wall", "-Wextra", "-Wpedantic", "-Wredundant-decls", "-Wconversion", "-Wshadow"];
    let cpp = compiler.ends_with("++").then_some("-Wold-style-cast");
    both.into_iter().chain(["-Werror"]).chain(cpp)
}

/// Compiles with the headers of the tree; panics with the compiler's messages.
pub fn compile(compiler: &str, arguments: &[&str]) {
    let mut command = Command::new(compiler);
    command.args(strict(compiler)).arg("-I").arg(places::root().join("include")).args(arguments);
    run(&mut command, b"").good(&format!("{command:?}"));
}

/// Compiles one source file into a program that finds the library at run time.
pub fn build_program(scratch: &Scratch, source: &Path, program: &Path) {
    let is_c = source.extension().is_some_and(|extension| extension == "c");
    let (compiler, standard) = if is_c { ("gcc", "-std=c99") } else { ("g++", "-std=c++17") };
    let library = library_folder(scratch);
    let text = |path: &Path| path.to_str().expect("scratch paths are UTF-8").to_owned();
    compile(
        compiler,
        &[
            standard,
            "-O1",
            "-g",
            &text(source),
            "-L",
            &text(&library),
            "-leasytransfer",
            &format!("-Wl,-rpath,{}", text(&library)),
            "-o",
            &text(program),
        ],
    );
}

/// The same program in three languages: language and path. C and C++ are compiled on the way.
pub fn in_all_languages(scratch: &Scratch, name: &str) -> Vec<(&'static str, PathBuf)> {
    let rust = places::staged().join(name);
    assert!(rust.exists(), "{}: build easytransfer-hosts first", rust.display());
    let mut programs = vec![("rust", rust)];
    for (language, extension) in [("c", "c"), ("cpp", "cpp")] {
        let source =
            places::root().join("hosts").join(language).join(format!("{name}.{extension}"));
        let program = scratch.path().join(format!("{name}-{language}"));
        if !program.exists() {
            build_program(scratch, &source, &program);
        }
        programs.push((language, program));
    }
    programs
}

/// A command that sees the staged plugins and those of `more`, and no others.
pub fn command(program: &Path, more: &[&Path]) -> Command {
    let mut places = vec![places::staged().join("plugins")];
    places.extend(more.iter().map(|path| path.to_path_buf()));
    let mut command = Command::new(program);
    command.env("ET_PLUGIN_PATH", std::env::join_paths(places).expect("no colon in the paths"));
    command
}

/// A file or folder of `hosts/demo` as text.
pub fn demo(name: &str) -> String {
    let path = fs::canonicalize(places::root().join("hosts/demo").join(name));
    path.expect("the demo data is there").to_str().expect("the tree's path is UTF-8").to_owned()
}

/// Puts a library that offers one loss, called as the plugin is, under a manifest of its own: `folder/id/id.toml`.
/// Answers with `folder`, which can stand in a search path.
pub fn install_loss(folder: &Path, id: &str, requires: &[&str], library: &Path) -> PathBuf {
    let place = folder.join(id);
    fs::create_dir_all(&place).expect("make the plugin's folder");
    let name = library.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
    fs::copy(library, place.join(name)).expect("copy the library");
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux_amd64",
        "aarch64" => "linux_arm64",
        other => panic!("{other}: no platform name for this machine"),
    };
    let manifest = format!(
        "manifest_version = 1\nid = {id:?}\nversion = \"0.1.0\"\n\n[abi]\nmajor = 0\nminor = 2\nrequires = {requires:?}\n\n[[provides]]\nkind = \"loss\"\nname = {id:?}\n\n[library]\n{platform} = {name:?}\n"
    );
    fs::write(place.join(format!("{id}.toml")), manifest).expect("write the manifest");
    folder.to_path_buf()
}

/// Puts a plugin of one library under a manifest of its own, as [`install_loss`] does; `provides` are kinds and names.
pub fn install(folder: &Path, id: &str, provides: &[(&str, &str)], library: &Path) -> PathBuf {
    let folder = install_loss(folder, id, &[], library);
    let path = folder.join(id).join(format!("{id}.toml"));
    let manifest = fs::read_to_string(&path).expect("the manifest was written");
    let (head, tail) = manifest.split_once("[[provides]]").expect("it provides a loss");
    let library = &tail[tail.find("[library]").expect("it names a library")..];
    let offered: String = provides
        .iter()
        .map(|(kind, name)| format!("[[provides]]\nkind = {kind:?}\nname = {name:?}\n\n"))
        .collect();
    fs::write(path, format!("{head}{offered}{library}")).expect("write the manifest");
    folder
}

/// Builds a plugin of one source file in C99 or C++17, as its ending says, into `folder`.
pub fn build_plugin(folder: &Path, source: &Path, library: &str) -> PathBuf {
    let (compiler, standard) = match source.extension().and_then(|ending| ending.to_str()) {
        Some("cpp") => ("g++", "-std=c++17"),
        _ => ("gcc", "-std=c99"),
    };
    let library = folder.join(library);
    let flags = [standard, "-shared", "-fPIC", "-O2", "-fvisibility=hidden"];
    let text = |path: &Path| path.to_str().expect("the tree's path is UTF-8").to_owned();
    let (source, output) = (text(source), text(&library));
    compile(compiler, &[&flags[..], &[&source, "-o", &output]].concat());
    library
}
