//! What `easytransfer plugin check` holds plugins to, of those that are linked in. One test in a process of its own,
//! because handles are counted.

use easytransfer_conformance::{Line, Verdict, check_record};
use easytransfer_tests::linked;

#[test]
fn linked_models_pass_every_check() {
    let _runtime = linked::runtime();
    for (record, models) in [
        (
            linked::zoo_word::PluginRecord::get(),
            &["text-cnn", "bilstm", "bigru-attention", "dam", "dam-plus", "bicnn", "hcnn"][..],
        ),
        (linked::zoo_imagebert::PluginRecord::get(), &["imagebert"]),
    ] {
        let report = check_record(record).unwrap();
        assert!(report.is_good(), "{report}");
        for model in models {
            for check in [
                "a gradient reaches every parameter",
                "gradient along a direction equals finite differences",
                "a row does not see its neighbours",
                "gives back every handle",
            ] {
                let passed = |line: &Line| {
                    line.component == format!("model {model}")
                        && line.check == check
                        && line.verdict == Verdict::Passed
                };
                assert!(report.lines.iter().any(passed), "{model}: {check}: {report}");
            }
        }
    }
}
