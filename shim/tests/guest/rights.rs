//! Who a guest is and what it may still do.

use serde_json::json;

use crate::support::*;

#[test]
fn the_program_runs_as_the_user_of_the_spec_with_little_else() {
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.spec["process"]["user"] =
            json!({"uid": 1234, "gid": 4321, "additionalGids": [5, 6], "umask": 0o27});
        bundle.spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        ]);
        let mut guest = bundle.spawn().await.unwrap();
        guest.start().await.unwrap();
        assert_eq!(status(&guest, "Uid"), "1234 1234 1234 1234");
        assert_eq!(status(&guest, "Gid"), "4321 4321 4321 4321");
        assert_eq!(status(&guest, "Groups"), "5 6");
        assert_eq!(status(&guest, "Umask"), "0027");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(&guest, set), "0000000000000000", "{set}");
        }
        assert_eq!(status(&guest, "NoNewPrivs"), "1");
        assert_eq!(status(&guest, "Threads"), "1");
        let limits = proc(&guest, "limits");
        let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(limit("Max open files").split_whitespace().any(|word| word == "200"));
        assert!(limit("Max core file size").contains(" 0 "));
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn root_keeps_of_the_granted_capabilities_what_a_guest_can_use() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        guest.start().await.unwrap();
        // CAP_DAC_OVERRIDE (1) is kept, CAP_SYS_ADMIN (21) is not.
        for (set, bits) in
            [("CapEff", 2), ("CapPrm", 2), ("CapBnd", 0), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(status(&guest, set), format!("{bits:016x}"), "{set}");
        }
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn limits_above_the_hosts_are_refused_at_start() {
    block_on(async {
        let mut bundle = Bundle::new();
        let above = 1_u64 << 40;
        bundle.spec["process"]["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "soft": above, "hard": above}]);
        let mut guest = bundle.spawn().await.unwrap();
        let error = guest.start().await.unwrap_err().to_string();
        assert!(error.contains("cannot set the resource limit"), "{error}");
        guest.cleanup().await.unwrap();
        bundle.assert_clean();
    });
}

#[test]
fn the_runners_executable_cannot_be_written_through_the_guest() {
    block_on(async {
        let bundle = Bundle::new();
        let mut guest = bundle.spawn().await.unwrap();
        let exe = format!("/proc/{}/exe", guest.pid());
        let flags = rustix::fs::statvfs(&exe).unwrap().f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
        assert!(std::fs::File::options().write(true).open(&exe).is_err());
        // The parked guest holds its streams, its channel and two folders of the container.
        let open = descriptors(&guest);
        assert_eq!(open.len(), 6, "{open:?}");
        assert!(open.iter().take(3).all(|(_, target)| target == "/dev/null"), "{open:?}");
        let others: Vec<_> = open.iter().skip(3).map(|(_, target)| target.as_str()).collect();
        assert!(others[0].starts_with("socket:"), "{others:?}");
        guest.cleanup().await.unwrap();
    });
}

#[test]
fn oom_preference_is_set_where_the_kernel_lets_us() {
    block_on(async {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let own: i32 = own.trim().parse().unwrap();
        // Raising is always allowed; lowering needs a right that this machine may withhold.
        for (score, certain) in [(own.max(0) + 500, true), (-900, false)] {
            let mut bundle = Bundle::new();
            bundle.spec["process"]["oomScoreAdj"] = score.into();
            let mut guest = bundle.spawn().await.unwrap();
            let got: i32 = proc(&guest, "oom_score_adj").trim().parse().unwrap();
            assert!(got == score || !certain && got == own, "{got}");
            guest.cleanup().await.unwrap();
            bundle.assert_clean();
        }
    });
}

#[test]
fn labels_that_cannot_be_had_fail_closed() {
    if std::path::Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        // Where AppArmor is on, a profile that is not loaded is what cannot be had.
        assert!(
            !std::path::Path::new("/sys/kernel/security/apparmor/policy/profiles/none").exists()
        );
    }
    block_on(async {
        let mut bundle = Bundle::new();
        bundle.spec["process"]["apparmorProfile"] = "no-such-profile".into();
        match bundle.spawn().await {
            Err(error) => {
                assert!(error.to_string().contains("no-such-profile"), "{error}");
            }
            Ok(mut guest) => {
                let error = guest.start().await.unwrap_err().to_string();
                assert!(error.contains("no-such-profile"), "{error}");
                guest.cleanup().await.unwrap();
            }
        }
        bundle.assert_clean();
        bundle.spec["process"]["apparmorProfile"] = "unconfined".into();
        let mut guest = bundle.spawn().await.unwrap();
        guest.cleanup().await.unwrap();
    });
}
