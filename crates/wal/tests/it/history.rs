//! Random histories against the model.

use crate::harness::{Model, Script, open, sim_disk};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use quorate_disk::CrashPolicy;

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_holds_what_the_model_holds(
        seed in any::<u64>(),
        steps in 1_u64..60,
        segment_kib in 4_u64..40,
        data_len_max in 0_u64..6000,
    ) {
        let script = Script::draw(seed, steps, segment_kib << 10, data_len_max);
        let disk = sim_disk(seed);
        let (progress, result) = script.run(&disk);
        result.unwrap();
        let (_, recovered) = open(&disk, &script.options).unwrap();
        prop_assert_eq!(&Model::of(recovered), &script.states[progress.tried]);
    }

    #[test]
    fn power_loss_at_any_point_of_any_history_is_survived(
        seed in any::<u64>(),
        steps in 1_u64..40,
        stop in 0_u64..400,
        data_len_max in 0_u64..3000,
    ) {
        let script = Script::draw(seed, steps, 8 << 10, data_len_max);
        let disk = sim_disk(seed);
        disk.power_off_at(stop);
        let (progress, _) = script.run(&disk);
        let left = disk.crash(&CrashPolicy::Seeded(seed));
        if let Ok((_, recovered)) = open(&left, &script.options) {
            script.check(progress, &Model::of(recovered));
        } else {
            prop_assert_eq!(progress.created, false);
        }
    }
}
