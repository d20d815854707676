//! The command line: training data that stay in memory or not, counted or not, give the same bytes; more data than
//! memory train.

use easytransfer_tests::command::Place;

/// Two epochs of short windows.
const EPOCHS: [&str; 6] = ["--set", "max_steps=0", "--set", "epochs=2", "--set", "batch.window=64"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&EPOCHS, more].concat()
}

#[test]
fn where_data_wait_and_who_makes_features_changes_nothing() {
    let place = Place::new("data-memory");
    let said = place.train("whole", &EPOCHS).good("whole");
    assert!(said.starts_with("trained 30 steps"), "{said}");
    let cases: [(&str, &[&str]); 5] = [
        ("file", &["--set", "data_memory=0"]),
        ("caller", &["--set", "data_memory=0", "--set", "workers=0"]),
        ("threads", &["--set", "data_memory=0", "--set", "workers=3"]),
        // 32 rows of 129 tokens may be more than 4,096, so lengths are counted first; no text is that long.
        ("counted", &["--set", "app.max_length=129"]),
        ("counted in a file", &["--set", "app.max_length=129", "--set", "data_memory=0"]),
    ];
    for (output, more) in cases {
        place.train(output, &with(more)).good(output);
        let model = |output: &str| place.read(&format!("{output}/model.safetensors"));
        assert!(model(output) == model("whole"), "{output}: other weights");
        assert_eq!(place.metrics(output), place.metrics("whole"), "{output}");
    }
    assert!(place.listing("").iter().all(|name| !name.ends_with(".rows")));
}

#[test]
fn bad_rows_are_left_out_before_batches_are_made() {
    let place = Place::new("data-skip");
    let text = place.read_text("train.tsv");
    let mut lines: Vec<&str> = text.lines().collect();
    place.train("whole", &EPOCHS).good("whole");
    for at in [1, 200, 201, 470] {
        lines.insert(at, "no label at all");
    }
    place.write("bad.tsv", format!("{}\n", lines.join("\n")));
    let skip = ["--train", "bad.tsv", "--on-bad-row", "skip"];
    let said = place.train("skipped", &with(&skip)).good("skipped");
    assert!(said.contains("rows left out: 4"), "{said}");
    let model = |output: &str| place.read(&format!("{output}/model.safetensors"));
    assert!(model("skipped") == model("whole"), "bad rows leave a trace");
}

#[test]
fn rate_is_that_of_the_optimizer_unless_the_run_says_otherwise() {
    let place = Place::new("default-rate");
    let arguments: Vec<&str> =
        "train --encoder encoder --from-scratch --output run --overwrite --quiet --train train.tsv --set max_steps=2 --set schedule.name=constant --set schedule.warmup=0 --set log_every=1"
            .split(' ')
            .collect();
    for (optimizer, more, rate) in [
        ("optimizer.name=adamw", &[][..], 5e-5),
        ("optimizer.name=sgd", &[], 0.02),
        ("optimizer.name=sgd", &["--set", "lr=0.5"], 0.5),
    ] {
        let arguments = [&arguments[..], &["--set", optimizer], more].concat();
        place.easytransfer(&arguments).good(optimizer);
        assert_eq!(place.curve("run", "train/lr"), [rate, rate], "{optimizer}");
        // The bundle says what the rate was.
        assert_eq!(place.read_json("run/easytransfer.json")["training"]["lr"], rate);
    }
    let said = place.easytransfer(&["plugin", "info", "sgd"]).good("info");
    assert!(said.contains("learning rate 0.02"), "{said}");
}

/// The most memory that a run had, in bytes.
#[cfg(target_os = "linux")]
fn peak(place: &Place, arguments: &[&str]) -> u64 {
    let mut child = place.command(arguments).spawn().expect("the command starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("the state of the child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("the child ended");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn data_that_do_not_fit_into_memory_train() {
    use std::fmt::Write;
    let place = Place::new("data-large");
    let rows = |count: usize| {
        let mut text = "text\tlabel\n".to_owned();
        for row in 0..count {
            let words = "where is my parcel it should have been here on monday ".repeat(5);
            writeln!(text, "{row} {words}\t{}", row % 3).expect("text can be written");
        }
        text
    };
    let large = rows(200_000);
    let size = large.len() as u64;
    assert!(size > 50 << 20);
    place.write("small.tsv", rows(4_000));
    place.write("large.tsv", large);
    let run = |data: &'static str, more: &[&'static str]| {
        let few = ["--valid", "small.tsv", "--set", "max_steps=3", "--set", "app.max_length=16"];
        let more = [&["--train", data][..], &few, more];
        peak(&place, &place.train_arguments("run", &more.concat()))
    };
    let small = run("small.tsv", &["--set", "data_memory=1"]);
    let large = run("large.tsv", &["--set", "data_memory=1"]);
    let kept = run("large.tsv", &["--set", "data_memory=512"]);
    // What stays of a row is where it is and its place in the order, about 12 bytes.
    assert!(large < small + size / 4, "{small} with few rows, {large} with {size} bytes of rows");
    assert!(kept > small + size, "{kept} with all rows in memory: this measures nothing");
}
