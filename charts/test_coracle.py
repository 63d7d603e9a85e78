"""What the chart coracle renders, by the real helm: `python3 -m unittest discover -s charts`.

Needs helm in PATH and python3-yaml, which deploy/setup.sh installs.
"""

import json
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

CHART = pathlib.Path(__file__).parent / "coracle"
METRICS = CHART.parents[1] / "deploy" / "node" / "README.md"
NODE_LABEL = "coracle.dev/wasm"


def helm(*words, values=None):
    """helm's result, given values as a document."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values or {}, file)
        file.flush()
        command = ["helm", *words, str(CHART), "--values", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def render(values=None, release="coracle"):
    """What helm would send: objects by (kind, name)."""
    done = helm("template", release, "--namespace", "nodes", values=values)
    if done.returncode:
        raise AssertionError(done.stderr)
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


def pod(rendered, name="coracle"):
    return rendered["DaemonSet", name]["spec"]["template"]["spec"]


class Defaults(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rendered = render()

    def test_lint_finds_nothing(self):
        done = helm("lint", "--strict")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_nothing_is_made_that_was_not_asked_for(self):
        self.assertEqual(
            sorted(self.rendered),
            [
                ("ClusterRole", "coracle"),
                ("ClusterRoleBinding", "coracle"),
                ("DaemonSet", "coracle"),
                ("Job", "coracle-uninstall"),
                ("Role", "coracle"),
                ("Role", "coracle-uninstall"),
                ("RoleBinding", "coracle"),
                ("RoleBinding", "coracle-uninstall"),
                ("RuntimeClass", "wasm"),
                ("ServiceAccount", "coracle"),
                ("ServiceAccount", "coracle-uninstall"),
            ],
        )

    def test_pods_of_the_class_go_where_the_daemon_says_that_it_works(self):
        runtime_class = self.rendered["RuntimeClass", "wasm"]
        self.assertEqual(runtime_class["handler"], "wasm")
        self.assertEqual(runtime_class["scheduling"], {"nodeSelector": {NODE_LABEL: "true"}})
        self.assertEqual(set(runtime_class["overhead"]["podFixed"]), {"cpu", "memory"})
        (daemon,) = pod(self.rendered)["containers"]
        self.assertIn(f"--node-label={NODE_LABEL}", daemon["args"])
        (installer,) = pod(self.rendered)["initContainers"]
        for container in (daemon, installer):
            self.assertIn("--handler=wasm", container["args"])

    def test_the_selector_is_of_the_daemons_alone(self):
        daemonset = self.rendered["DaemonSet", "coracle"]["spec"]
        wanted = daemonset["selector"]["matchLabels"].items()
        self.assertLessEqual(wanted, daemonset["template"]["metadata"]["labels"].items())
        job = self.rendered["Job", "coracle-uninstall"]["spec"]["template"]["metadata"]["labels"]
        self.assertFalse(wanted <= job.items())

    def test_one_image_of_the_charts_version(self):
        version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
        job = self.rendered["Job", "coracle-uninstall"]["spec"]["template"]["spec"]
        found = [*pod(self.rendered)["initContainers"], *pod(self.rendered)["containers"], *job["containers"]]
        self.assertEqual({container["image"] for container in found}, {f"coracle:{version}"})

    def test_rights_in_the_cluster_are_the_least(self):
        def rights(kind, name):
            rules = self.rendered[kind, name]["rules"]
            return [(rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in rules]

        self.assertEqual(
            rights("ClusterRole", "coracle") + rights("Role", "coracle"),
            [(["nodes"], None, ["patch"]), (["events"], None, ["create"])],
        )
        self.assertEqual(self.rendered["Role", "coracle"]["metadata"]["namespace"], "default")
        self.assertEqual(
            rights("Role", "coracle-uninstall"),
            [(["daemonsets"], ["coracle"], ["get", "patch"]), (["pods"], None, ["list"])],
        )

    def test_the_job_that_undoes_has_no_rights_on_its_node(self):
        job = self.rendered["Job", "coracle-uninstall"]
        self.assertEqual(job["metadata"]["annotations"]["helm.sh/hook"], "pre-delete")
        spec = job["spec"]["template"]["spec"]
        self.assertNotIn("hostPID", spec)
        context = spec["containers"][0]["securityContext"]
        self.assertTrue(context["runAsNonRoot"] and context["readOnlyRootFilesystem"])
        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})

    def test_notes_give_three_commands_that_come_next(self):
        done = helm("install", "coracle", "--dry-run=client", "--namespace", "nodes")
        notes = done.stdout.partition("NOTES:")[2]
        self.assertEqual(re.findall(r"^(\d)\. ", notes, re.MULTILINE), ["1", "2", "3"])
        self.assertIn("kubectl -n nodes rollout status daemonset/coracle", notes)
        self.assertIn('"runtimeClassName":"wasm"', notes)


class Dashboard(unittest.TestCase):
    def test_it_asks_for_what_the_daemon_exports(self):
        known = set(re.findall(r"^\| `(coracle_[a-z_]+)` \|", METRICS.read_text(), re.MULTILINE))
        panels = json.loads((CHART / "dashboards" / "coracle.json").read_text())["panels"]
        for panel in panels:
            for target in panel["targets"]:
                for name in re.findall(r"coracle_[a-z_]+", target["expr"]):
                    with self.subTest(panel["title"]):
                        self.assertIn(re.sub("_(bucket|count|sum)$", "", name), known)


class Values(unittest.TestCase):
    def test_they_are_few_and_each_is_in_the_schema(self):
        text = (CHART / "values.yaml").read_text()
        self.assertLess(len(text.splitlines()), 100)
        schema = json.loads((CHART / "values.schema.json").read_text())

        def compare(values, node, path):
            names = set(node["properties"]) - {"global"}
            self.assertEqual(set(values), names, path)
            for key, value in values.items():
                inner = node["properties"][key]
                if isinstance(value, dict) and "properties" in inner and key != "overhead":
                    compare(value, inner, f"{path}.{key}")

        compare(yaml.safe_load(text), schema, "values")

    def test_wrong_ones_are_refused_by_name(self):
        wrong = {
            "nodeSelektor": {"nodeSelektor": {}},
            "daemon": {"daemon": {"prot": 1}},
            "port": {"daemon": {"port": 70000}},
            "distribution": {"install": {"distribution": "nixos"}},
            "binDir": {"install": {"binDir": "opt/coracle"}},
            "compile": {"install": {"options": {"compile": 1}}},
            "name": {"runtimeClass": {"name": "Wasm!"}},
            "digest": {"image": {"digest": "sha256:12"}},
            "pullPolicy": {"image": {"pullPolicy": "Sometimes"}},
            "maxUnavailable": {"install": {"maxUnavailable": 0}},
            "timeoutSeconds": {"uninstall": {"timeoutSeconds": "soon"}},
            "interval": {"podMonitor": {"interval": "30"}},
        }
        for name, values in wrong.items():
            with self.subTest(name):
                done = helm("template", "coracle", values=values)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(name, done.stderr)

    def test_a_digest_takes_the_place_of_the_tag(self):
        digest = "sha256:" + "0" * 64
        image = {"repository": "registry.example/coracle", "tag": "1", "digest": digest}
        (daemon,) = pod(render({"image": image}))["containers"]
        self.assertEqual(daemon["image"], f"registry.example/coracle@{digest}")

    def test_another_class_has_another_label(self):
        rendered = render({"runtimeClass": {"name": "wasm2", "overhead": None}}, release="second")
        runtime_class = rendered["RuntimeClass", "wasm2"]
        self.assertEqual(runtime_class["scheduling"], {"nodeSelector": {"coracle.dev/wasm2": "true"}})
        self.assertNotIn("overhead", runtime_class)
        (daemon,) = pod(rendered, "second-coracle")["containers"]
        self.assertIn("--node-label=coracle.dev/wasm2", daemon["args"])

    def test_runtime_options_reach_installer_and_daemon(self):
        rendered = render({"install": {"options": {"CompileMemoryMiB": 4096}, "sandbox": True}})
        (installer,) = pod(rendered)["initContainers"]
        (daemon,) = pod(rendered)["containers"]
        self.assertIn("--option=CompileMemoryMiB=4096", installer["args"])
        self.assertIn("--sandboxer", installer["args"])
        # Else the daemon would compile under another key than the containers look for.
        self.assertIn("--option=CompileMemoryMiB=4096", daemon["args"])

    def test_monitoring_and_undoing_are_switches(self):
        rendered = render(
            {"podMonitor": {"enabled": True, "labels": {"a": "b"}}, "dashboard": {"enabled": True}}
            | {"uninstall": {"enabled": False}}
        )
        monitor = rendered["PodMonitor", "coracle"]
        self.assertEqual(monitor["metadata"]["labels"]["a"], "b")
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        (daemon,) = pod(rendered)["containers"]
        self.assertIn(endpoint["port"], [port["name"] for port in daemon["ports"]])
        board = rendered["ConfigMap", "coracle-dashboard"]["data"]["coracle.json"]
        self.assertTrue(json.loads(board)["panels"])
        self.assertNotIn(("Job", "coracle-uninstall"), rendered)

    def test_repair_is_a_switch(self):
        for repair in (True, False):
            (daemon,) = pod(render({"daemon": {"repair": repair}}))["containers"]
            self.assertEqual("--repair" in daemon["args"], repair)

    def test_force_reaches_the_job(self):
        job = render({"uninstall": {"force": True}})["Job", "coracle-uninstall"]
        self.assertIn("--force", job["spec"]["template"]["spec"]["containers"][0]["args"])


if __name__ == "__main__":
    unittest.main()
