package argocd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const (
	scripts = "../../config/argo-cd"
	kind    = "meshupgrade.io_MeshUpgrade"
)

// verbs in the order of the snippet.
var verbs = []string{"approve", "pause", "resume", "rollback", "retry"}

// expected is what cases.yaml says of an object of testdata. The plugin's tests read the same file.
type expected struct {
	Health  string            `json:"health"`
	Actions map[string]string `json:"actions"`
}

// customization is what the snippet says: the scripts as Argo CD gets them.
type customization struct {
	health    string
	discovery string
	actions   map[string]string
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func snippet(t *testing.T) customization {
	t.Helper()
	var configMap struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]string `json:"metadata"`
		Data       map[string]string `json:"data"`
	}
	read(t, filepath.Join(scripts, "argocd-cm.yaml"), &configMap)
	var actions struct {
		Discovery   string `json:"discovery.lua"`
		Definitions []struct {
			Name   string `json:"name"`
			Action string `json:"action.lua"`
		} `json:"definitions"`
	}
	text := configMap.Data["resource.customizations.actions."+kind]
	if err := yaml.UnmarshalStrict([]byte(text), &actions); err != nil {
		t.Fatal(err)
	}
	found := customization{
		health:    configMap.Data["resource.customizations.health."+kind],
		discovery: actions.Discovery,
		actions:   map[string]string{},
	}
	for _, definition := range actions.Definitions {
		found.actions[definition.Name] = definition.Action
	}
	return found
}

func cases(t *testing.T) map[string]expected {
	t.Helper()
	var cases map[string]expected
	read(t, "cases.yaml", &cases)
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) != len(cases) {
		t.Fatalf("%d objects in testdata, %d cases: %v", len(files), len(cases), err)
	}
	return cases
}

func object(t *testing.T, name string) map[string]any {
	t.Helper()
	var object map[string]any
	read(t, filepath.Join("testdata", name+".yaml"), &object)
	return object
}

func TestTheSnippetHoldsTheScripts(t *testing.T) {
	found := snippet(t)
	same := func(path, pasted string) {
		text, err := os.ReadFile(filepath.Join(scripts, path))
		if err != nil || string(text) != pasted {
			t.Errorf("argocd-cm.yaml is stale: make generate (%s: %v)", path, err)
		}
	}
	same("health.lua", found.health)
	same("actions/discovery.lua", found.discovery)
	for _, verb := range verbs {
		same(filepath.Join("actions", verb, "action.lua"), found.actions[verb])
	}
	if len(found.actions) != len(verbs) {
		t.Errorf("actions: %v", found.actions)
	}
}

func TestHealth(t *testing.T) {
	script := snippet(t).health
	for name, expected := range cases(t) {
		object := object(t, name)
		result, err := Run(script, object)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var health struct{ Status, Message string }
		if err := json.Unmarshal(result, &health); err != nil {
			t.Fatal(err)
		}
		if health.Status != expected.Health || health.Message == "" {
			t.Errorf("%s: %q (%s), expected %q", name, health.Status, health.Message, expected.Health)
		}
	}
}

func TestOfANewSpecNothingIsKnown(t *testing.T) {
	for name := range cases(t) {
		object := object(t, name)
		object["metadata"].(map[string]any)["generation"] = float64(1000)
		result, err := Run(snippet(t).health, object)
		if err != nil || !strings.Contains(string(result), `"Progressing"`) {
			t.Errorf("%s: %s %v", name, result, err)
		}
	}
}

func TestActionsAreThoseOfStatus(t *testing.T) {
	script := snippet(t).discovery
	for name, expected := range cases(t) {
		result, err := Run(script, object(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var found map[string]struct{ Disabled bool }
		if err := json.Unmarshal(result, &found); err != nil {
			t.Fatal(err)
		}
		for _, verb := range verbs {
			_, offered := expected.Actions[verb]
			if action, listed := found[verb]; !listed || action.Disabled == offered {
				t.Errorf("%s: %s: listed %v, disabled %v, offered %v", name, verb, listed, action.Disabled, offered)
			}
		}
		if len(found) != len(verbs) {
			t.Errorf("%s: %v", name, found)
		}
	}
}

func TestAnActionSetsItsAnnotationAndNothingElse(t *testing.T) {
	scripts := snippet(t).actions
	for name, expected := range cases(t) {
		for _, verb := range verbs {
			result, err := Run(scripts[verb], object(t, name))
			value, offered := expected.Actions[verb]
			if !offered {
				if err == nil || !strings.Contains(err.Error(), "does not offer "+verb) {
					t.Errorf("%s: %s is not offered, and came to %s %v", name, verb, result, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %s: %v", name, verb, err)
				continue
			}
			before := object(t, name)
			after, err := Changed(result, before)
			if err != nil {
				t.Fatal(err)
			}
			metadata := before["metadata"].(map[string]any)
			annotations, _ := metadata["annotations"].(map[string]any)
			if annotations == nil {
				annotations = map[string]any{}
			}
			annotations["meshupgrade.io/action"] = value
			metadata["annotations"] = annotations
			if !reflect.DeepEqual(after, before) {
				t.Errorf("%s: %s: %v\nexpected %v", name, verb, after, before)
			}
		}
	}
}

func TestAScriptHasNoMoreThanArgoCDGives(t *testing.T) {
	for _, script := range []string{`return {string.format("%d", 1)}`, `return {os.getenv("HOME")}`, `while true do end`} {
		if result, err := Run(script, map[string]any{}); err == nil {
			t.Errorf("%s: %s", script, result)
		}
	}
}
