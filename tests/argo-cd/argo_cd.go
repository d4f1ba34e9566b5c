// Package argocd runs the Lua scripts of config/argo-cd the way Argo CD runs scripts of its ConfigMap argocd-cm.
//
// Argo CD itself (github.com/argoproj/argo-cd, util/lua) is not imported for its hundreds of dependencies: its Lua is
// gopher-lua, with the base, package and table libraries and a small os, and a second for each script. What a script may use
// is kept smaller here: no os.
package argocd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
)

// Limit is the time that a script may take here. In Argo CD it is a second, which would say nothing about a script on a machine
// that is busy with other tests.
const Limit = 10 * time.Second

// Run runs a script on an object and returns the table that it returns, as JSON.
func Run(script string, object map[string]any) ([]byte, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage,
		lua.BaseLibName: lua.OpenBase,
		lua.TabLibName:  lua.OpenTable,
	} {
		call := lua.P{Fn: state.NewFunction(open), Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return nil, fmt.Errorf("library %q: %w", name, err)
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", luajson.DecodeValue(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	result := state.Get(-1)
	if result.Type() != lua.LTTable {
		return nil, errors.New("the script returns no table")
	}
	return luajson.Encode(result)
}

// Changed is an object after an action, by its JSON. Lua has one kind of table, so that what was empty comes back as a list:
// Argo CD undoes that where it was a map, and so does this.
func Changed(result []byte, before map[string]any) (map[string]any, error) {
	var after map[string]any
	if err := json.Unmarshal(result, &after); err != nil {
		return nil, err
	}
	restored, _ := restore(after, before).(map[string]any)
	return restored, nil
}

func restore(after, before any) any {
	switch after := after.(type) {
	case []any:
		if empty, ok := before.(map[string]any); ok && len(after) == 0 {
			return empty
		}
		if list, ok := before.([]any); ok && len(list) == len(after) {
			for index := range after {
				after[index] = restore(after[index], list[index])
			}
		}
	case map[string]any:
		if fields, ok := before.(map[string]any); ok {
			for key := range after {
				after[key] = restore(after[key], fields[key])
			}
		}
	}
	return after
}
