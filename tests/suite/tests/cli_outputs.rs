//! The command line: where an output goes, what becomes of it when something happens meanwhile, and what it must not
//! replace.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Outcome, run};

/// A place with a bundle `app` and a file of two texts.
fn with_app(name: &str) -> Place {
    let place = Place::new(name);
    place.train("app", &["--set", "max_steps=1"]).good("train");
    place.write("q.txt", "where is my parcel\nhello\n");
    place
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Runs the command through a shell that does `how` to it.
fn through_shell(place: &Place, how: &str, arguments: &[&str]) -> Outcome {
    let command = place.command(arguments);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(how).arg(command.get_program()).args(arguments);
    shell.current_dir(place.at(""));
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(&mut shell, b"")
}

#[test]
fn outputs_go_through_links_and_into_devices_and_pipes() {
    let place = with_app("outputs");
    let predict = |output: &str| {
        place.easytransfer(&[
            "predict",
            "--model",
            "app",
            "--data",
            "q.txt",
            "--output-format",
            "jsonl",
            "--output",
            output,
        ])
    };
    let expected = predict("-").good("standard output");
    assert_eq!(expected.lines().count(), 2);
    assert_eq!(predict("/dev/stdout").good("/dev/stdout"), expected);
    assert_eq!(predict("/dev/fd/1").good("/dev/fd/1"), expected);
    place.write("real.jsonl", "keep\n");
    for (link, target) in
        [("null", "/dev/null"), ("link", "real.jsonl"), ("chain", "link"), ("new", "made.jsonl")]
    {
        symlink(target, place.at(link)).unwrap();
        predict(link).good(link);
        assert_eq!(fs::read_link(place.at(link)).unwrap(), Path::new(target), "{link}");
    }
    assert_eq!(place.read_text("real.jsonl"), expected);
    assert_eq!(place.read_text("made.jsonl"), expected);
    make_pipe(&place.at("pipe"));
    let pipe = place.at("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    predict("pipe").good("pipe");
    assert_eq!(reader.join().unwrap(), expected);
    assert!(!fs::symlink_metadata(place.at("pipe")).unwrap().is_file());
    // Whoever appends keeps what was there.
    place.write("log", "before\n");
    for output in ["-", "/dev/stdout"] {
        let arguments = [
            "predict",
            "--model",
            "app",
            "--data",
            "q.txt",
            "--output-format",
            "jsonl",
            "--output",
            output,
        ];
        through_shell(&place, "exec \"$0\" \"$@\" >> log", &arguments).good(output);
    }
    assert_eq!(place.read_text("log"), format!("before\n{expected}{expected}"));
    // An array begins with its length.
    let embed = ["embed", "--encoder", "app", "--data", "q.txt", "--output"];
    make_pipe(&place.at("pipe.npy"));
    let pipe = place.at("pipe.npy");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    let refused = place.easytransfer(&[&embed[..], &["pipe.npy"]].concat());
    assert!(refused.code == 2 && refused.stderr.contains("pipe.npy"), "{}", refused.stderr);
    reader.join().unwrap();
    symlink("v.npy", place.at("link.npy")).unwrap();
    place.easytransfer(&[&embed[..], &["link.npy"]].concat()).good("link.npy");
    assert!(place.read("v.npy").starts_with(b"\x93NUMPY"));
    let left: Vec<String> =
        place.listing("").into_iter().filter(|name| name.contains(".tmp-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn replaced_files_keep_their_mode_and_owner() {
    let place = with_app("modes");
    let evaluate = ["evaluate", "--model", "app", "--data", "dev.tsv", "--report"];
    let predict = ["predict", "--model", "app", "--data", "q.txt", "--output"];
    let embed = ["embed", "--encoder", "app", "--data", "q.txt", "--output"];
    for (arguments, output) in
        [(&evaluate, "r.html"), (&predict, "p.jsonl"), (&predict, "p.tsv"), (&embed, "v.npy")]
    {
        for mode in [0o600, 0o640, 0o666] {
            place.write(output, "old");
            let path = place.at(output);
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let before = fs::metadata(&path).unwrap();
            place.easytransfer(&[&arguments[..], &[output]].concat()).good(output);
            let after = fs::metadata(&path).unwrap();
            assert!(place.read(output) != b"old");
            assert_eq!(after.mode() & 0o7777, mode, "{output}");
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()), "{output}");
        }
    }
    // The bundle, too.
    for (file, mode) in [("model.safetensors", 0o600), ("easytransfer.json", 0o640)] {
        fs::set_permissions(place.at("app").join(file), PermissionsExt::from_mode(mode)).unwrap();
    }
    place.train("app", &["--set", "max_steps=1"]).good("again");
    for (file, mode) in [("model.safetensors", 0o600), ("easytransfer.json", 0o640)] {
        assert_eq!(
            fs::metadata(place.at("app").join(file)).unwrap().mode() & 0o7777,
            mode,
            "{file}"
        );
    }
}

/// Waits until `holds`, for at most ten minutes, which a loaded machine may need.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(600), "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the child has begun to watch for signals.
fn is_watching(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let blocked = blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    blocked & 1 << (libc::SIGINT - 1) != 0
}

fn send(child: &Child, signal: i32) {
    // SAFETY: sends a signal to a child that was not waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn interrupts_leave_nothing_of_an_unfinished_output() {
    let place = with_app("interrupts");
    place.write("many.txt", "where is my parcel\n".repeat(200_000));
    let rows = "where is my parcel\trefund\n".repeat(100_000);
    let label = place.read_json("app/easytransfer.json")["labels"][0].as_str().unwrap().to_owned();
    place.write("many.tsv", format!("text\tlabel\n{}", rows.replace("refund", &label)));
    make_pipe(&place.at("pipe"));
    let before = place.listing("");
    let cases: [&[&str]; 6] = [
        &["predict", "--model", "app", "--data", "many.txt", "--output", "p.jsonl"],
        &["embed", "--encoder", "app", "--data", "many.txt", "--output", "v.npy"],
        &["evaluate", "--model", "app", "--data", "many.tsv", "--report", "r.html"],
        // Waiting for somebody who never comes: in the data, the training data, the output.
        &["predict", "--model", "app", "--data", "-", "--output", "p.jsonl"],
        &["train", "--encoder", "encoder", "--from-scratch", "--train", "-", "--output", "out/run"],
        &[
            "predict",
            "--model",
            "app",
            "--data",
            "q.txt",
            "--output-format",
            "jsonl",
            "--output",
            "pipe",
        ],
    ];
    for (index, arguments) in cases.into_iter().enumerate() {
        for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
            let mut child = place.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
            // Waiting for the child would close its input, which it would take for the end of the data.
            let _input = child.stdin.take();
            wait_until("the watch for signals", || is_watching(&child));
            if index < 3 {
                let has_begun = |name: &String| name.contains(".tmp-");
                wait_until("the output", || place.listing("").iter().any(has_begun));
            } else if arguments[0] == "train" {
                wait_until("the output", || place.at("out/run").exists());
            }
            send(&child, signal);
            let status = child.wait().unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?}");
            assert_eq!(place.listing(""), before, "{arguments:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn training_that_is_ended_keeps_its_checkpoint_and_says_by_what() {
    let place = Place::new("ended");
    let long = ["--set", "max_steps=300", "--set", "epochs=20", "--set", "checkpoint_every=1"];
    for (output, signal, code) in
        [("int", libc::SIGINT, 130), ("term", libc::SIGTERM, 143), ("hup", libc::SIGHUP, 129)]
    {
        let arguments = place.train_arguments(output, &long);
        let child = place.command(&arguments).spawn().unwrap();
        wait_until("a checkpoint", || place.at(output).join("checkpoint/state.json").exists());
        send(&child, signal);
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("--resume"), "{said}");
        let names = place.listing(output);
        assert!(names.contains(&"checkpoint/state.json".to_owned()), "{names:?}");
        let partial = |name: &&String| name.contains(".tmp-") || name.contains("easytransfer.json");
        assert_eq!(names.iter().find(partial), None);
    }
}

#[test]
fn closed_and_full_standard_outputs_are_errors() {
    let place = with_app("closed");
    let predict = ["predict", "--model", "app", "--data", "q.txt"];
    let closed = "exec \"$0\" \"$@\" >&-";
    let train = place.train_arguments("new", &["--set", "max_steps=1"]);
    let before = place.listing("");
    for arguments in [
        &predict[..],
        &["predict", "--model", "app", "--data", "q.txt", "--output", "/dev/stdout"],
        &["evaluate", "--model", "app", "--data", "dev.tsv"],
        &["embed", "--encoder", "app", "--data", "q.txt", "--output", "v.npy"],
        &["plugin", "list"],
        &["device", "list"],
        &["--help"],
        &["--version"],
        &train,
    ] {
        let outcome = through_shell(&place, closed, arguments);
        assert_eq!(outcome.code, 1, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("standard output"), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(place.listing(""), before, "{arguments:?}");
    }
    // Who writes nothing there needs none.
    let to_file = [&predict[..], &["--output", "p.jsonl"]].concat();
    through_shell(&place, closed, &to_file).good("a file");
    // Devices that are open for reading, too, are no closed ones.
    through_shell(&place, "exec \"$0\" \"$@\" 1<>/dev/null", &predict).good("/dev/null");
    for arguments in [&predict[..], &["plugin", "list"]] {
        let full = through_shell(&place, "exec \"$0\" \"$@\" > /dev/full", arguments);
        assert_eq!(full.code, 1, "{}", full.stderr);
        assert!(full.stderr.contains("space"), "{}", full.stderr);
    }
    let none = through_shell(&place, "exec \"$0\" \"$@\" <&-", &predict[..3]);
    assert_eq!(none.code, 2, "{}", none.stderr);
}

#[test]
fn no_room_on_the_disk_leaves_the_old_file() {
    let place = with_app("no-room");
    place.write("many.txt", "where is my parcel\n".repeat(20_000));
    for (command, output) in [("predict", "p.jsonl"), ("embed", "v.npy")] {
        place.write(output, "old");
        let before = place.listing("");
        let model = if command == "predict" { "--model" } else { "--encoder" };
        let arguments = [command, model, "app", "--data", "many.txt", "--output", output];
        // A limit on the size of files says no at the same place as a full disk.
        let outcome = through_shell(&place, "ulimit -f 100; exec \"$0\" \"$@\"", &arguments);
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(output), "{}", outcome.stderr);
        assert_eq!(place.read_text(output), "old");
        assert_eq!(place.listing(""), before);
    }
    // The log of the run is the first thing that it writes.
    let train = place.train_arguments("run", &[]);
    let outcome = through_shell(&place, "ulimit -f 0; exec \"$0\" \"$@\"", &train);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(!place.at("run/easytransfer.json").exists());
}

#[test]
fn outputs_that_would_replace_an_input_are_refused() {
    let place = with_app("inputs");
    symlink("q.txt", place.at("link.txt")).unwrap();
    fs::hard_link(place.at("q.txt"), place.at("hard.txt")).unwrap();
    fs::copy(place.at("q.txt"), place.at("q.npy")).unwrap();
    place.write("r.tsv", place.read("dev.tsv"));
    let before = place.listing("");
    let weights = place.read("app/model.safetensors");
    let cases: [(&[&str], &str); 13] = [
        (&["predict", "--model", "app", "--data", "q.txt", "--profile", "q.txt"], "--profile"),
        (
            &["evaluate", "--model", "app", "--data", "dev.tsv", "--report", "x", "--profile", "x"],
            "--profile",
        ),
        (&["evaluate", "--model", "app", "--data", "dev.tsv", "--report", "-"], "--report"),
        (&["predict", "--model", "app", "--data", "q.txt", "--output", "new/"], "new/"),
        (&["predict", "--model", "app", "--data", "q.txt", "--output", "q.txt"], "q.txt"),
        (&["predict", "--model", "app", "--data", "q.txt", "--output", "link.txt"], "link.txt"),
        (&["predict", "--model", "app", "--data", "hard.txt", "--output", "q.txt"], "q.txt"),
        (&["embed", "--encoder", "app", "--data", "q.npy", "--output", "q.npy"], "q.npy"),
        (&["evaluate", "--model", "app", "--data", "r.tsv", "--report", "r.tsv"], "r.tsv"),
        (
            &["evaluate", "--model", "app", "--data", "dev.tsv", "--report", "app/config.json"],
            "app/config.json",
        ),
        (
            &["embed", "--encoder", "app", "--data", "q.txt", "--output", "app/model.safetensors"],
            "app/model.safetensors",
        ),
        (&["predict", "--model", "app", "--data", "q.txt", "--output", "q.txt/p.tsv"], "q.txt"),
        (&["predict", "--model", "app", "--data", "q.txt", "--output", "none/p.tsv"], "`none`"),
    ];
    for (arguments, needle) in cases {
        let outcome = place.easytransfer(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(needle), "{arguments:?}: {}", outcome.stderr);
    }
    let input = fs::File::open(place.at("q.txt")).unwrap();
    let piped =
        place.command(&["predict", "--model", "app", "--output", "q.txt"]).stdin(input).output();
    assert_eq!(piped.unwrap().status.code(), Some(2));
    assert_eq!(place.read_text("q.txt"), "where is my parcel\nhello\n");
    assert!(place.read("app/model.safetensors") == weights);
    assert_eq!(place.listing(""), before);
    // A report beside the model is welcome, also a second time.
    for _ in 0..2 {
        let beside =
            ["evaluate", "--model", "app", "--data", "dev.tsv", "--report", "app/test.html"];
        place.easytransfer(&beside).good("beside");
    }
}

#[test]
fn places_that_may_not_be_written_to_are_named_before_the_work() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        // Root may write everywhere; without it this test has a subject.
        return;
    }
    let place = with_app("read-only");
    fs::create_dir(place.at("shut")).unwrap();
    place.write("shut/old.tsv", "old");
    place.write("guarded.tsv", "old");
    fs::set_permissions(place.at("guarded.tsv"), PermissionsExt::from_mode(0o444)).unwrap();
    fs::set_permissions(place.at("shut"), PermissionsExt::from_mode(0o555)).unwrap();
    let before = place.listing("");
    for output in ["shut/new.tsv", "shut/old.tsv", "guarded.tsv"] {
        let arguments = ["predict", "--model", "app", "--data", "q.txt", "--output", output];
        let outcome = place.easytransfer(&arguments);
        assert_eq!(outcome.code, 2, "{output}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(output), "{output}: {}", outcome.stderr);
    }
    let outcome = place.train("shut/run", &[]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert_eq!((place.listing(""), place.read_text("shut/old.tsv")), (before, "old".to_owned()));
    fs::set_permissions(place.at("shut"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// A run that is long enough to meet another one.
const LONG: [&str; 6] =
    ["--set", "max_steps=150", "--set", "epochs=20", "--set", "checkpoint_every=1"];

#[test]
fn second_run_into_a_directory_is_refused_while_the_first_one_lives() {
    let place = Place::new("two-writers");
    let arguments = place.train_arguments("run", &LONG);
    let mut first = place.command(&arguments).spawn().unwrap();
    wait_until("a checkpoint", || place.at("run/checkpoint/state.json").exists());
    for more in [&["--set", "seed=2"][..], &["--resume"], &["--set", "max_steps=1"]] {
        let second = place.train("run", more);
        assert_eq!(second.code, 2, "{}", second.stderr);
        assert!(
            second.stderr.contains("`run`") && second.stderr.contains("another run"),
            "{}",
            second.stderr
        );
    }
    place.train("beside", &["--set", "max_steps=1"]).good("another directory");
    first.kill().unwrap();
    first.wait().unwrap();
    place.train("run", &[&LONG[..], &["--resume"]].concat()).good("resumed after kill -9");
}

#[test]
fn directory_with_a_model_is_kept_unless_the_user_says_otherwise() {
    let place = Place::new("overwrite");
    let train = |output: &str, more: &[&str]| {
        let all = place.train_arguments(output, more);
        let arguments: Vec<&str> = all.into_iter().filter(|part| *part != "--overwrite").collect();
        place.easytransfer(&arguments)
    };
    let refused = |outcome: Outcome, needles: &[&str]| {
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        for needle in needles {
            assert!(outcome.stderr.contains(needle), "{needle}: {}", outcome.stderr);
        }
    };
    let one = ["--set", "max_steps=1"];
    train("run", &one).good("new");
    let content = || {
        let names =
            place.listing("run").into_iter().filter(|name| place.at("run").join(name).is_file());
        names.map(|name| (place.read(&format!("run/{name}")), name)).collect::<Vec<_>>()
    };
    let before = content();
    refused(train("run", &one), &["`run`", "a finished bundle", "--overwrite"]);
    refused(train("run", &[&one[..], &["--resume"]].concat()), &["`run`", "finished bundle"]);
    assert!(content() == before);
    // A file of the older bundle that the new one does not have goes with it.
    let mut manifest = place.read_json("run/easytransfer.json");
    manifest["files"]["old.txt"] = manifest["files"]["config.json"].clone();
    place.write("run/easytransfer.json", manifest.to_string());
    place.write("run/old.txt", "old");
    place.write("run/note.txt", "of somebody");
    place.write("over.toml", "overwrite = true\n");
    train("run", &[&one[..], &["--config", "over.toml"]].concat()).good("overwrite in the options");
    assert!(!place.at("run/old.txt").exists() && place.at("run/note.txt").exists());
    assert!(place.read_json("run/easytransfer.json")["training"].get("overwrite").is_none());
    let all = place.train_arguments("run", &["--set", "max_steps=2"]);
    place.easytransfer(&all).good("--overwrite");
    let said = place.easytransfer(&["predict", "--model", "run", "--data", "q.txt"]);
    assert_eq!(said.code, 2, "there is no q.txt: {}", said.stderr);
    // What an interrupted run left.
    let mut child = place.command(&place.train_arguments("half", &LONG)).spawn().unwrap();
    wait_until("a checkpoint", || place.at("half/checkpoint/state.json").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    refused(train("half", &one), &["`half`", "unfinished run", "--resume", "--overwrite"]);
    // A model of somebody else, and the encoder itself.
    fs::create_dir(place.at("foreign")).unwrap();
    place.write("foreign/config.json", "{}");
    refused(train("foreign", &one), &["`foreign`", "--overwrite"]);
    let encoder = place.easytransfer(&place.train_arguments("encoder", &one));
    refused(encoder, &["`encoder`", "directory of the encoder"]);
    assert_eq!(place.read_text("foreign/config.json"), "{}");
}

#[test]
fn pipe_whose_reader_goes_ends_quietly() {
    let place = with_app("gone");
    place.write("many.txt", "where is my parcel\n".repeat(5000));
    make_pipe(&place.at("pipe"));
    let arguments = [
        "predict",
        "--model",
        "app",
        "--data",
        "many.txt",
        "--output-format",
        "jsonl",
        "--output",
        "pipe",
    ];
    let child = place.command(&arguments).stdin(Stdio::null()).spawn().unwrap();
    // Opened and closed again without reading on.
    drop(fs::File::open(place.at("pipe")).unwrap());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    std::io::stdout().flush().unwrap();
}
