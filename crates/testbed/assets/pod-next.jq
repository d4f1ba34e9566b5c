# Names the one stage that comes next for a pod. Every pod stage of this testbed selects on this expression, so that two
# stages never match at once (kwok would pick one of them at random).
(.metadata.annotations // {}) as $a
| ($a["istio.io/rev"] // "") as $rev
| def on($fault): $a["testbed.meshupgrade.io/" + $fault] == "true"
    or ($rev != "" and $a["testbed.meshupgrade.io/" + $fault + "-on"] == $rev);
  ([.status.conditions[]? | select(.type == "testbed.meshupgrade.io/state") | .reason][0] // "None") as $is
| ([.metadata.ownerReferences[]? | select(.kind == "Job")] | length > 0) as $job
| (if on("image-pull-failure") then "ImagePullFailure"
   elif on("never-ready") then "NeverReady"
   elif $is == "Completed" then "Completed"
   elif $job and $is == "Ready" and ($a["testbed.meshupgrade.io/fail-after"] | not) then "Completed"
   elif $a["testbed.meshupgrade.io/fail-after"] and ($is == "Ready" or $is == "Crashed") then "Crashed"
   elif $a["testbed.meshupgrade.io/ready-after"] and $is == "None" then "Starting"
   else "Ready" end) as $want
# No grace left: it is deleted already, and asking twice would only be refused.
| if .metadata.deletionTimestamp and .metadata.deletionGracePeriodSeconds == 0 then "End"
  elif .metadata.deletionTimestamp then "Delete"
  elif .status.phase == "Succeeded" or .status.phase == "Failed" then "End"
  elif $is == $want then "Stay"
  else $want end
