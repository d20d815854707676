//! The suite that any plugin must pass, over the families of models that are linked here. Alone in its program, because
//! it counts the handles of the process.

use easytransfer::plugin::abi;
use easytransfer_conformance::check_record;
use easytransfer_tests::linked;

#[test]
fn families_pass_the_checks_of_plugins() {
    let records: [&'static abi::et_plugin_record; 3] = [
        linked::zoo_modernbert::PluginRecord::get(),
        linked::zoo_deberta::PluginRecord::get(),
        linked::zoo_xlnet::PluginRecord::get(),
    ];
    for record in records {
        let report = check_record(record).unwrap();
        assert!(report.is_good(), "{report}");
        assert!(report.lines.len() > 8, "{report}");
    }
}
