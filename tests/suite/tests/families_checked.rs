//! The suite that any plugin must pass, over the families of models that are linked here. Alone in its program, because
//! it counts the handles of the process.

use easytransfer::plugin::LinkedPlugin;
use easytransfer_conformance::check_record;
use easytransfer_tests::linked;

#[test]
fn families_pass_the_checks_of_plugins() {
    let plugins: [LinkedPlugin; 3] = [
        linked::zoo_modernbert::PluginRecord::get(),
        linked::zoo_deberta::PluginRecord::get(),
        linked::zoo_xlnet::PluginRecord::get(),
    ];
    for plugin in plugins {
        let report = check_record(plugin).unwrap();
        assert!(report.is_good(), "{report}");
        assert!(report.lines.len() > 8, "{report}");
    }
}
