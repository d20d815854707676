//! `easytransfer plugin check` finds what is wrong with a plugin, and says what was promised and what was found.
//!
//! Each source of `defects/` is a correct plugin of one kind, and with one macro defined a plugin with one defect. The
//! command runs over all of them; a correct one has no findings.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use easytransfer_tests::hosts::{Outcome, Scratch, install_loss, run, strict};
use easytransfer_tests::places;
use serde_json::Value;

/// A defect of the plugin of a source: the macro, the slot of the finding ("" for any), and words of what was promised
/// or found.
type Defect = (&'static str, &'static str, &'static str);

const LOSS: &[Defect] = &[
    ("two_symbols", "et_plugin_entry", "loss_helper too"),
    ("slow_init", "init", "expected less than"),
    ("crash_in_init", "init", "signal 11"),
    ("init_once", "init", "init was called before"),
    ("error_without_message", "create", "has no message"),
    ("default_differs", "create", "scale: without it the component does something else"),
    ("default_refused", "create", "scale: 1 is none"),
    ("allowed_refused", "create", "which the schema allows"),
    ("hidden_option", "create", "temper = "),
    ("option_unread", "create", "scale changes nothing"),
    ("option_of_the_schema_alone", "create", "margin changes nothing"),
    ("abort_on_bad_option", "create", "signal 6"),
    ("exit_on_bad_option", "create", "exit code 3"),
    ("global_options", "create", "instance with other options"),
    ("schema_no_json", "schema", "it is not JSON"),
    ("schema_default_outside", "schema", "scale"),
    ("release_of_null", "release", "signal 11"),
    ("release_keeps", "release", "bytes more with every call"),
    ("naive_exponentials", "forward", "logits of ±"),
    ("counts_calls", "forward", "found "),
    ("crash_without_rows", "forward", "signal 11"),
    ("division_by_rows", "forward", "signal 8"),
    ("fixed_buffer", "forward", "signal "),
    ("nan_on_many_rows", "forward", "65 rows: the value is NaN"),
    ("first_row_only", "weight", "mean of the parts"),
    ("hangs", "forward", "took longer than"),
    ("takes_memory", "forward", "MiB of memory"),
    ("rows_of_two_axes", "rows", "expected shape [4], found [4, 1]"),
    ("rows_in_another_order", "forward", "entry i of `rows` is not of row i"),
    ("computes_in_a_thread", "forward", "other threads have called it"),
    ("uses_what_it_released", "forward", "one that was released"),
    ("crashes_in_training", "forward", "signal 11"),
    ("random_numbers", "forward", "found "),
    ("leaves_files_open", "forward", "files are still open"),
    ("slow_create", "create", "it took 1.2"),
    ("leaks_a_tensor", "forward", "handles are still alive"),
    ("releases_twice", "forward", "one that was released"),
    ("ignores_weights", "forward", "the weights of the rows are ignored"),
    ("weights_not_normalised", "forward", "rows that all weigh 2"),
    ("leaks_memory", "forward", "bytes more with every call"),
    ("writes_to_output", "forward", "wrote \"loss of"),
    ("writes_to_error", "forward", "wrote \"loss of"),
    ("sets_locale", "forward", "setlocale"),
    ("changes_folder", "forward", "working directory"),
    ("changes_environment", "forward", "LOSS_WAS_HERE"),
    ("signal_handler", "forward", "handler of signal 10"),
    ("rounding", "forward", "rounding of numbers"),
    ("thread_left", "forward", "still running"),
    ("changes_batch", "forward", "\"labels\" of its inputs was changed"),
    ("adds_to_outputs", "forward", "\"rows\" was added to its inputs"),
    ("null_result", "forward", "NULL"),
    ("no_scalar", "forward", "expected a scalar"),
    ("wrong_gradient", "forward", "by differences"),
    ("sum_for_mean", "rows", "mean of `rows`"),
    ("wrong_weight", "weight", "weight of the parts"),
];

const METRIC: &[Defect] = &[
    ("shared_counts", "create", "of an instance beside another"),
    ("aborts_without_rows", "update", "signal 6"),
    ("fixed_buffer", "update", "signal 6"),
    ("changes_outputs", "update", "\"logits\" of its inputs was changed"),
    ("order_of_rows", "update", "in another order"),
    ("counts_batches", "update", "in three"),
    ("nan_without_rows", "compute", "nan"),
    ("null_result", "", "NULL"),
    ("no_object", "", "the answer is not the JSON that it promises"),
    ("figure_is_text", "compute", "mean is \""),
    ("compute_resets", "compute", "when asked again"),
    ("unknown_figure", "describe", "median"),
    ("of_answers_without_slot", "describe", "the slot answers is NULL"),
    ("saves_half", "state_merge", "that were merged"),
    ("merge_replaces", "state_merge", "that were merged"),
    ("no_merge", "describe", "state_merge is NULL"),
];

const OPTIMIZER: &[Defect] = &[
    ("shared_state", "create", "beside another"),
    ("ignores_scale", "step", "whose rate is 0 moved"),
    ("ignores_rate", "step", "they changed"),
    ("divides_by_norm", "step", "a parameter is NaN"),
    ("leaves_the_tail", "step", "did not move"),
    ("decays_without_rate", "step", "a learning rate of 0"),
    ("leaks_gradient", "step", "handles are still alive"),
    ("moves_frozen", "step", "frozen parameters"),
    ("crash_without_gradient", "step", "signal 11"),
    ("climbs", "step", "a quadratic falls"),
    ("saves_nothing", "state_save", "the parameters differ"),
    ("loads_nothing", "state_save", "the parameters differ"),
];

const STRATEGY: &[Defect] = &[
    ("unknown_phase", "phases", "found Phases"),
    ("hook_is_missing", "phases", "the slot combine is NULL"),
    ("no_phase", "", "expected at least one hook"),
    ("random_weights", "create", "of another fit"),
    ("negative_weights", "on_setup", "\"weights\" are [-1"),
    ("weights_of_two_axes", "on_setup", "expected shape [4], found [4, 1]"),
    ("leaks_labels", "", "handles are still alive"),
    ("session_from_thread", "on_setup", "came from another thread"),
    ("nan_loss", "on_setup", "is NaN"),
    ("saves_nothing", "state_save", "after the checkpoint"),
    ("loads_nothing", "state_save", "after the checkpoint"),
    ("no_state", "state_save", "after the checkpoint"),
    ("no_load", "phases", "state_load is NULL"),
];

const FIT: &[Defect] = &[
    ("saves_nothing", "state_save", "after the checkpoint"),
    ("goes_on", "on_setup", "the run is over"),
    ("hook_is_missing", "phases", "the slot fit is NULL"),
];

const OP: &[Defect] = &[
    ("crash_without_rows", "forward", "signal 6"),
    ("leaves_the_tail", "forward", "NaN"),
    ("changes_input", "forward", "forward changed its inputs"),
    ("random", "forward", "the outputs differ"),
    ("wrong_gradient", "backward", "by differences"),
    ("leaks_slope", "backward", "handles are still alive"),
];

const APP: &[Defect] = &[
    ("no_details", "features", "has no details"),
    ("state_not_read", "state", "expected {"),
    ("state_is_empty", "state", "made from the state"),
    ("columns_without_names", "columns", "lacks a role or names"),
    ("best_is_nothing", "describe", "best_is"),
    ("longer_than_said", "describe", "expected at most 2"),
    ("no_finish", "describe", "the slot finish is NULL"),
    ("crash_without_text", "features", "signal 11"),
    ("static_buffer", "features", "when four threads ask at once"),
    ("no_row", "", "expected at least one row"),
    ("counts_records", "features", "they differ"),
    ("net_from_thread", "forward", "came from another thread"),
    ("crash_without_rows", "decode", "signal 6"),
    ("mean_of_all", "decode", "a row is answered"),
    ("changes_batch", "forward", "its inputs"),
    ("leaks_logits", "", "handles are still alive"),
    ("too_few_parts", "decode", "expected "),
    ("parts_reversed", "decode", "a row is answered"),
    ("naive_softmax", "decode", "the answer is not the JSON that it promises"),
    ("parts_are_texts", "decode", "the answer is not the JSON that it promises"),
    ("null_result", "decode", "NULL"),
];

const MODEL: &[Defect] = &[
    ("width_is_missing", "describe", "hidden_size is 0"),
    ("crash_without_rows", "forward", "signal 6"),
    ("one_row_of_none", "forward", "expected no rows"),
    ("mixes_rows", "forward", "when it is alone"),
    ("nan_on_long_runs", "forward", "not finite"),
    ("untrained_projection", "forward", "none for projection"),
    ("pooled_of_tokens", "forward", "pooled: expected"),
    ("changes_batch", "forward", "\"positions\" of its inputs was changed"),
    ("leaks_memory", "forward", "bytes more with every call"),
];

/// Sources with the defects that they can have; a name with a slash is a source and a variant of it.
const ALL: [(&str, &[Defect]); 9] = [
    ("loss", LOSS),
    ("metric", METRIC),
    ("optimizer", OPTIMIZER),
    ("strategy", STRATEGY),
    ("fit", FIT),
    ("op", OP),
    ("app", APP),
    ("app/lists", &[]),
    ("model", MODEL),
];

const REQUIRES: [&str; 3] = ["et.tensor/1", "et.nn/1", "et.data/1"];

fn sources() -> PathBuf {
    places::root().join("tests/suite/tests/defects")
}

/// Builds the plugin of a kind, with a defect or as it is, and installs it with a manifest. Answers with its folder.
fn installed(scratch: &Scratch, source: &str, defect: Option<&str>) -> PathBuf {
    let (source, variant) = source.split_once('/').unwrap_or((source, "usual"));
    let name = format!("{source}-{variant}-{}", defect.unwrap_or("good"));
    let place = scratch.path().join(&name);
    std::fs::create_dir_all(&place).unwrap();
    let library = place.join("libunder_check.so");
    let mut command = Command::new("gcc");
    command.args(["-std=c99", "-O1", "-shared", "-fPIC", "-fvisibility=hidden"]);
    match defect {
        // What a defect leaves unused is no matter.
        Some(defect) => command.args(["-w", &format!("-DDEFECT_{defect}")]),
        None => command.args(strict("gcc")),
    };
    command.arg("-I").arg(places::root().join("include"));
    command.arg(format!("-DVARIANT_{variant}"));
    command.arg(sources().join(format!("{source}.c"))).arg("-o").arg(&library);
    run(command.args(["-lm", "-lpthread"]), b"").good(&name);
    installed_library(&place, kind_of(source), &library)
}

fn kind_of(source: &str) -> &str {
    if source == "fit" { "strategy" } else { source }
}

/// Puts a library that offers one component of a kind, "under-check", under a manifest of its own.
fn installed_library(place: &Path, kind: &str, library: &Path) -> PathBuf {
    let folder = install_loss(place, "under-check", &REQUIRES, library).join("under-check");
    let manifest = folder.join("under-check.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("kind = \"loss\"", &format!("kind = {kind:?}")))
        .unwrap();
    folder
}

fn check(folder: &Path, more: &[&str]) -> Outcome {
    let mut command = Command::new(places::staged().join("easytransfer"));
    // Two seconds are enough for every check here but the one that never ends.
    run(command.args(["plugin", "check"]).arg(folder).args(more), b"")
}

/// What is wrong with the check of a defect, if so.
fn missed(scratch: &Scratch, kind: &str, (defect, slot, words): Defect) -> Option<String> {
    let folder = installed(scratch, kind, Some(defect));
    let time = if defect == "hangs" { "3" } else { "60" };
    let outcome = check(&folder, &["--json", "--timeout", time, "--memory", "400"]);
    let place = format!("{kind} {defect}");
    if outcome.code != 1 {
        return Some(format!(
            "{place}: code {}: {}{}",
            outcome.code, outcome.stdout, outcome.stderr
        ));
    }
    let report: Value = match serde_json::from_str(&outcome.stdout) {
        Ok(report) => report,
        Err(error) => return Some(format!("{place}: {error}: {}", outcome.stdout)),
    };
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
    let is_it = |finding: &&Value| {
        let is_there = text(finding, "component") == format!("{} under-check", kind_of(kind))
            || text(finding, "component") == "library";
        let is_slot = slot.is_empty() || text(finding, "slot") == slot;
        let told = format!("{} {}", text(finding, "promised"), text(finding, "found"));
        is_there && is_slot && told.contains(words)
    };
    match findings.iter().find(is_it) {
        Some(_) => None,
        None => Some(format!("{place}: {words:?} of {slot:?} is not in {findings:#?}")),
    }
}

/// Runs `work` over all of a list on two threads, and collects what it says.
fn over<T: Sync>(list: &[T], work: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let (next, said) = (Mutex::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let at = {
                        let mut next = next.lock().unwrap();
                        *next += 1;
                        *next - 1
                    };
                    let Some(item) = list.get(at) else { break };
                    if let Some(text) = work(item) {
                        said.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    said.into_inner().unwrap()
}

#[test]
fn defects_are_found_with_their_reason() {
    let scratch = Scratch::new("defects");
    let of = |(kind, defects): &(&'static str, &'static [Defect])| {
        defects.iter().map(|defect| (*kind, *defect)).collect::<Vec<_>>()
    };
    let all: Vec<(&str, Defect)> = ALL.iter().flat_map(of).collect();
    assert!(all.len() >= 100, "{}", all.len());
    let missed = over(&all, |(kind, defect)| missed(&scratch, kind, *defect));
    assert!(missed.is_empty(), "{} of {} missed:\n{}", missed.len(), all.len(), missed.join("\n"));
}

#[test]
fn correct_plugins_have_no_findings() {
    let scratch = Scratch::new("no-defects");
    let complaints = over(&ALL, |(kind, _)| {
        let folder = installed(&scratch, kind, None);
        let outcome = check(&folder, &[]);
        let is_good = outcome.code == 0 && outcome.stdout.contains("no findings");
        (!is_good).then(|| format!("{kind}: {}{}", outcome.stdout, outcome.stderr))
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The example that stands in the comment of the header.
fn example() -> String {
    let header =
        std::fs::read_to_string(places::root().join("include/easytransfer_plugin.h")).unwrap();
    let lines = header.lines().skip_while(|line| !line.contains("cc -shared")).skip(1);
    let code: Vec<&str> = lines.filter_map(|line| line.strip_prefix(" *   ")).collect();
    format!("#include <string.h>\n{}\n", code.join("\n"))
}

#[test]
fn example_of_the_header_has_no_findings() {
    let scratch = Scratch::new("header-example");
    let source = scratch.path().join("loss.c");
    std::fs::write(&source, example()).unwrap();
    let library = scratch.path().join("libloss_mine.so");
    let mut command = Command::new("gcc");
    // The line of the header.
    command.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source);
    command.arg("-I").arg(places::root().join("include"));
    run(&mut command, b"").good("the header's example");
    let folder = install_loss(scratch.path(), "loss-mine", &REQUIRES, &library).join("loss-mine");
    let manifest = folder.join("loss-mine.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("name = \"loss-mine\"", "name = \"mine\"")).unwrap();
    let said = check(&folder, &[]).good("plugin check of the header's example");
    assert!(said.contains("loss mine: ") && said.contains("no findings"), "{said}");
}

#[test]
fn report_is_readable_and_the_plugin_itself_writes_nothing_into_it() {
    let scratch = Scratch::new("report");
    let folder = installed(&scratch, "loss", Some("writes_to_output"));
    let outcome = check(&folder, &[]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(!outcome.stdout.contains("\nloss of"), "{}", outcome.stdout);
    let line = "  loss under-check: forward: writes nothing to standard output, which is the host's: FAILED: wrote";
    assert!(outcome.stdout.contains(line), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("findings about plugin under-check"), "{}", outcome.stderr);
    // A crash is told where it happened, and the checks after it are made.
    let folder = installed(&scratch, "loss", Some("crash_without_rows"));
    let said = check(&folder, &["--all"]).stdout;
    assert!(
        said.contains(
            "no rows are no panic: FAILED: it crashed: the process was ended by signal 11"
        ),
        "{said}"
    );
    assert!(said.contains("loss under-check: gives back every handle: ok"), "{said}");
    // What cannot be loaded is no finding.
    let folder = installed(&scratch, "loss", Some("no_forward"));
    let outcome = check(&folder, &[]);
    assert_eq!(outcome.code, 2, "{}", outcome.stdout);
    assert!(outcome.stderr.contains("et_plugin_loss.forward"), "{}", outcome.stderr);
}
