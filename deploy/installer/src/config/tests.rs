//! Tests of what we read from configurations and write into them.

use super::*;

fn entry() -> Entry {
    Entry {
        handler: "wasm".into(),
        runtime_type: crate::config::RUNTIME_TYPE.into(),
        runtime_path: "/opt/coracle/bin/containerd-shim-wasm-v1".into(),
        systemd_cgroup: true,
        options: toml::Table::new(),
        sandboxer: false,
        local_pull: false,
        defaults: toml::Table::new(),
    }
}

fn parsed(text: &str) -> toml::Table {
    text.parse().unwrap()
}

const KUBEADM: &str = r#"# by hand
version = 2
root = "/var/lib/containerd" # here

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.example/pause:3.9"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes]
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
          runtime_type = "io.containerd.runc.v2"
          [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
            SystemdCgroup = true

[debug]
  level = "info"
# the end
"#;

#[test]
fn versions_are_read_from_the_file() {
    let number = |text| version(text).map(FormatVersion::number);
    assert_eq!(number("").unwrap(), 1);
    assert_eq!(number("# version = 3\n[plugins.cri]\nversion = 2").unwrap(), 1);
    assert_eq!(number("version = 2").unwrap(), 2);
    assert_eq!(number("version=4").unwrap(), 4);
    assert!(number("version = 5").unwrap_err().to_string().contains('5'));
    assert!(number("version = \"2\"").is_err());
    let error = number("version = 2\n[plugins\nx = 1").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn what_was_there_stays_byte_for_byte() {
    for pull in [false, true] {
        let entry = Entry { local_pull: pull, ..entry() };
        let out = add(KUBEADM, FormatVersion(2), &entry).unwrap();
        let kept = KUBEADM.strip_suffix("# the end\n").unwrap();
        if !pull {
            assert!(out.starts_with(kept), "{out}");
        }
        assert_eq!(strip(&out, "wasm").unwrap(), KUBEADM, "{out}");
        let again = add(&strip(&out, "wasm").unwrap(), FormatVersion(2), &entry).unwrap();
        assert_eq!(again, out);
    }
}

#[test]
fn each_version_has_its_key() {
    for (number, key) in [(1, CRI_V1), (2, CRI_V2), (3, CRI_V3), (4, CRI_V3)] {
        let out = own_file(FormatVersion(number), &entry());
        let table = parsed(&out);
        assert_eq!(table["version"].as_integer(), Some(number.into()));
        let wasm = &table["plugins"][key]["containerd"]["runtimes"]["wasm"];
        assert_eq!(wasm["runtime_type"].as_str(), Some(RUNTIME_TYPE));
        assert_eq!(wasm["options"]["SystemdCgroup"].as_bool(), Some(true));
    }
}

#[test]
fn options_stand_beside_the_node_s_own() {
    let options: toml::Table = "CompileMemoryMiB = 4096\nLogLevel = \"a b\"".parse().unwrap();
    for systemd_cgroup in [true, false] {
        let entry = Entry { options: options.clone(), systemd_cgroup, ..entry() };
        let table = parsed(&own_file(FormatVersion(3), &entry));
        let wasm = &table["plugins"][CRI_V3]["containerd"]["runtimes"]["wasm"];
        assert_eq!(wasm["options"].as_table(), Some(&entry.all_options()));
        assert_eq!(wasm["options"].get(SYSTEMD_CGROUP).is_some(), systemd_cgroup);
        assert_eq!(wasm["options"]["CompileMemoryMiB"].as_integer(), Some(4096));
    }
}

#[test]
fn inline_and_dotted_tables_are_joined() {
    let inline = "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { containerd = { runtimes = { \
                  runc = { runtime_type = \"io.containerd.runc.v2\" } } } } }\n";
    let dotted = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd.runtimes.runc.runtime_type = \
                  \"io.containerd.runc.v2\"\ncontainerd.default_runtime_name = \"runc\"\n";
    for text in [inline, dotted] {
        let out = add(text, FormatVersion(2), &entry()).unwrap();
        let mut table = parsed(&out);
        let runtimes = &mut table["plugins"][CRI_V2]["containerd"]["runtimes"];
        assert_eq!(runtimes["wasm"]["options"]["SystemdCgroup"].as_bool(), Some(true), "{out}");
        runtimes.as_table_mut().unwrap().remove("wasm");
        assert_eq!(table, parsed(text), "{out}");
        assert_eq!(parsed(&strip(&out, "wasm").unwrap()), parsed(text));
    }
}

#[test]
fn only_our_own_handler_is_removed() {
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.wasm]\nruntime_type = \
                \"io.containerd.wasmtime.v1\"\n";
    assert_eq!(strip(text, "wasm").unwrap(), text);
    // Also when somebody else wants images to be pulled that way.
    let text =
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\"]\nuse_local_image_pull = true\n";
    assert_eq!(strip(text, "wasm").unwrap(), text);
}

#[test]
fn a_table_made_for_pulling_goes_with_it() {
    let entry = Entry { local_pull: true, ..entry() };
    let text = "version = 3\n[grpc]\naddress = \"/run/x\"\n";
    let out = add(text, FormatVersion(3), &entry).unwrap();
    assert_eq!(parsed(&out)["plugins"][IMAGES_V3][PULL_KEY].as_bool(), Some(true), "{out}");
    assert_eq!(strip(&out, "wasm").unwrap(), text);
    let text = "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = \"native\"\n";
    let out = add(text, FormatVersion(3), &entry).unwrap();
    assert_eq!(strip(&out, "wasm").unwrap(), text);
}

#[test]
fn blocks_of_templates_are_told_by_their_lines() {
    let user = "{{ template \"base\" . }}\n\n[plugins.x]\n  y = 1\n";
    let whole = format!("{user}{}", block(FormatVersion(3), &entry()));
    assert_eq!(without_block(&whole), user);
    assert_eq!(without_block(user), user);
    assert_eq!(without_block(&format!("{whole}\n[z]\n")), format!("{user}\n[z]\n"));
}

#[test]
fn imports_are_lists_of_names() {
    let text = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\", 'b.toml']\n[x]\n";
    assert_eq!(imports(text).unwrap(), ["/etc/containerd/conf.d/*.toml", "b.toml"]);
    assert!(imports("version = 2").unwrap().is_empty());
    let out = with_imports(text, &["/a".into()]).unwrap();
    assert_eq!(imports(&out).unwrap(), ["/a"]);
    assert_eq!(imports(&with_imports("[x]\ny = 1", &["/a".into()]).unwrap()).unwrap(), ["/a"]);
}
