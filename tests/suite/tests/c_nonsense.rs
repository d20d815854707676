//! Every function of `easytransfer.h` with everything that a caller can get wrong: NULL, handles that were released or
//! are of another kind, texts that are none, counts without end. The calls are generated from the header, so a new
//! function is walked through as well.
#![cfg(unix)]

use std::fmt::Write;
use std::fs;

use easytransfer_tests::command::Place;
use easytransfer_tests::hosts::{Scratch, build_program, command, run};
use easytransfer_tests::places;

/// A function of the header: what it answers with, its name, and the types of its parameters.
struct Function {
    answer: String,
    name: String,
    parameters: Vec<String>,
}

/// The text without its comments and preprocessor lines.
fn bare(header: &str) -> String {
    let mut text = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        text.push_str(before);
        rest = comment.split_once("*/").expect("the comment ends").1;
    }
    text.push_str(rest);
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

fn functions(header: &str) -> Vec<Function> {
    let mut all: Vec<Function> = Vec::new();
    for declaration in bare(header).split(';') {
        let declaration = declaration.split_whitespace().collect::<Vec<_>>().join(" ");
        let declaration = declaration.trim_start_matches("extern \"C\" { ");
        if declaration.starts_with("typedef") {
            continue;
        }
        let Some((head, parameters)) = declaration.split_once('(') else { continue };
        let (answer, name) = head.split_at(head.rfind("et_").expect("a name"));
        let parameters = parameters.trim_end_matches(')').split(", ");
        // A type and a name.
        let kind = |parameter: &str| {
            let end = parameter.rfind([' ', '*']).expect("a type and a name") + 1;
            parameter[..end].replace("struct ", "").replace(' ', "")
        };
        all.push(Function {
            answer: answer.replace("struct ", "").replace(' ', ""),
            name: name.to_owned(),
            parameters: parameters.filter(|p| *p != "void").map(kind).collect(),
        });
    }
    all
}

/// The value at index `i` for a parameter of a type, how many there are, and whether one must be refused.
fn values(kind: &str, i: &str) -> (String, String, Option<String>) {
    let array = |name: &str| (format!("{name}[{i}]"), format!("LEN({name})"), None);
    let handle = |kind: &str, type_name: &str| {
        let value = format!("({type_name} *)handles[{kind}][{i}]");
        (value, "HANDLES".to_owned(), Some(format!("is_bad({i})")))
    };
    let object = |name: &str| {
        let bad = format!("is_bad({i})");
        (format!("{name}[{i}]"), "OBJECTS".to_owned(), Some(bad))
    };
    if let Some(type_name) = kind.strip_suffix("**") {
        return (format!("({i} ? &out_{type_name} : NULL)"), "2".to_owned(), None);
    }
    match kind {
        "constchar*" => array("strings"),
        "constchar*const*" => array("texts"),
        "constet_str*" => array("sized"),
        "et_str" => array("requests"),
        "et_log_callback" => ("NULL".to_owned(), "1".to_owned(), None),
        "size_t" => array("sizes"),
        "int32_t" => array("int32s"),
        "uint32_t" => array("uint32s"),
        "uint64_t" => array("uint64s"),
        "double" => array("doubles"),
        "float*" => array("rooms"),
        "et_on_event" => array("callbacks"),
        "void*" => ("NULL".to_owned(), "1".to_owned(), None),
        "constet_plugin_record*" => array("records"),
        "constet_map*" => object("maps"),
        "constet_error*" | "et_error*" => object("errors"),
        _ => {
            let name = kind.trim_start_matches("const").trim_end_matches('*');
            let known =
                ["runtime", "app", "embedder", "loss", "model", "optimizer", "predictions", "text"];
            let short = name.trim_start_matches("et_");
            assert!(known.contains(&short), "no values are known for a parameter of type {kind}");
            handle(&short.to_uppercase(), name)
        }
    }
}

/// Functions that take whatever they are given: without a callback the log is the default one.
const TAKE_ALL: [&str; 1] = ["et_log_to"];

/// What an answer to a bad handle must be.
fn nothing(answer: &str) -> &'static str {
    match answer {
        "size_t" | "int64_t" => "answer == 0",
        "float" => "answer != answer",
        "et_str" => "answer.len == 0",
        pointer if pointer.ends_with('*') => "answer == NULL",
        // The code of what is no error is not that of success.
        "int32_t" => "answer != 0 || at[0] == 0",
        other => panic!("no answer is known for the type {other}"),
    }
}

fn walk(function: &Function) -> String {
    let Function { answer, name, parameters } = function;
    let mut code = format!("static void walk_{name}(void)\n{{\n    size_t at[8] = {{0}};\n");
    let mut arguments = Vec::new();
    let mut bad = vec!["0".to_owned()];
    for (index, kind) in parameters.iter().enumerate() {
        let i = format!("at[{index}]");
        let (value, len, refused) = values(kind, &i);
        writeln!(code, "    for ({i} = 0; {i} < {len}; {i}++)").unwrap();
        arguments.push(value);
        bad.extend(refused);
    }
    let (arguments, bad) = (arguments.join(", "), bad.join(" || "));
    let call = format!("{name}({arguments})");
    writeln!(code, "    {{\n        note(\"{name}\", at);").unwrap();
    if parameters.is_empty() {
        writeln!(code, "        (void){call};").unwrap();
    } else if TAKE_ALL.contains(&name.as_str()) {
        writeln!(code, "        et_error_release({call});").unwrap();
    } else if answer == "et_error*" {
        writeln!(code, "        judge(\"{name}\", at, {call}, {bad});").unwrap();
    } else if answer == "void" {
        writeln!(code, "        {call};").unwrap();
    } else {
        let shown = answer.replace("const", "const ");
        writeln!(code, "        {shown} answer = {call};").unwrap();
        let empty = nothing(answer);
        writeln!(code, "        if (({bad}) && !({empty})) fail(\"{name}\", at, \"an answer\");")
            .unwrap();
    }
    writeln!(code, "    }}\n}}\n").unwrap();
    code
}

#[test]
fn every_function_answers_nonsense_with_an_error() {
    let header = fs::read_to_string(places::root().join("include/easytransfer.h")).unwrap();
    let mut functions = functions(&header);
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    functions.dedup_by(|a, b| a.name == b.name);
    let mut sources = String::new();
    for entry in fs::read_dir(places::root().join("capi/src")).unwrap() {
        sources.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let exported = sources.matches("extern \"C\" fn et_").count();
    assert_eq!(functions.len(), exported, "functions of the header, functions of the library");

    let mut code = include_str!("hosts/nonsense.c").to_owned();
    for function in &functions {
        code.push_str(&walk(function));
    }
    code.push_str("int main(int argc, char **argv)\n{\n    if (argc != 4) return 1;\n");
    code.push_str("    set_up(argv[1], argv[2]);\n");
    for Function { name, .. } in &functions {
        writeln!(code, "    if (strcmp(argv[3], \"{name}\") == 0) walk_{name}();").unwrap();
    }
    code.push_str("    check_the_rest(argv[3]);\n");
    code.push_str(
        "    printf(\"done %lu calls, %lu refused\\n\", calls, refused);\n    return 0;\n}\n",
    );

    let place = Place::new("nonsense");
    place.train("app", &["--set", "max_steps=1"]).good("train");
    let config = place.read_text("app/config.json");
    let scratch = Scratch::new("nonsense");
    let (source, program) = (scratch.path().join("walk.c"), scratch.path().join("walk"));
    fs::write(&source, code).unwrap();
    build_program(&scratch, &source, &program);
    // Any name that is not empty is one of a directory to which a model may be saved.
    let saves = Scratch::new("nonsense-saves");
    for Function { name, answer, parameters } in &functions {
        let place_of = if name == "et_model_save" { saves.path() } else { scratch.path() };
        let mut command = command(&program, &[]);
        command.current_dir(place_of).env("RAYON_NUM_THREADS", "2");
        command.arg(place.at("app")).args([&config, name]);
        let outcome = run(&mut command, b"");
        let last = outcome.stdout.lines().last().unwrap_or_default();
        assert_eq!(
            outcome.code, 0,
            "{name}: code {} after: {last}\n{}",
            outcome.code, outcome.stderr
        );
        assert!(last.starts_with("done ") && !last.starts_with("done 0 "), "{name}: {last}");
        if answer == "et_error*" && !parameters.is_empty() && !TAKE_ALL.contains(&name.as_str()) {
            assert!(!last.ends_with(" 0 refused"), "{name}: {last}");
        }
    }
    assert!(!saves.path().join("config.json").exists(), "an empty name was taken for a directory");
    // Nothing was written where the program ran.
    let left = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.filter_map(|name| name.into_string().ok()).collect();
    left.sort();
    assert_eq!(left, ["lib", "walk", "walk.c"]);
}

#[test]
fn object_is_used_by_many_threads_and_released_meanwhile() {
    let place = Place::new("c-threads");
    place.train("app", &["--set", "max_steps=1"]).good("train");
    let scratch = Scratch::new("c-threads");
    let (source, program) = (scratch.path().join("threads.c"), scratch.path().join("threads"));
    fs::write(&source, include_str!("hosts/threads.c")).unwrap();
    build_program(&scratch, &source, &program);
    for _ in 0..3 {
        let mut command = command(&program, &[]);
        command.env("RAYON_NUM_THREADS", "2").arg(place.at("app"));
        let said = run(&mut command, b"").good("threads");
        assert_eq!(said, "right, 0 alive\n");
    }
}
