{{/*
What values.schema.json cannot say and `sandbox` refuses of a platform configuration: it must fail here, for whoever
installs it, and not later for everybody who uses it. Each test of the tool's own has its counterpart here
(project/quotas.py; a test holds both together).
*/}}
{{- define "sandbox.check" -}}
{{- range $key := list "warnBefore" "recordRetention" }}{{ include "sandbox.checkDuration" (dict "key" $key "text" (get $.Values $key)) }}{{ end -}}
{{- range $name, $profile := .Values.profiles -}}
{{- include "sandbox.checkProfile" (dict "key" (printf "profiles.%s" $name) "name" $name "profile" $profile) -}}
{{- end -}}
{{- end }}

{{- define "sandbox.checkDuration" -}}
{{- if gt (include "sandbox.seconds" .text | int64) 3153600000 }}{{ fail (printf "%s: %q is too long: a century at most" .key .text) }}{{ end -}}
{{- end }}

{{- define "sandbox.checkProfile" -}}
{{- $key := .key -}}
{{- $profile := .profile -}}
{{- if ne ($profile.name | default .name) .name }}{{ fail (printf "%s calls itself %q" $key $profile.name) }}{{ end -}}
{{- range $field := list "maxTTL" "maxLifetime" -}}
{{- with get $profile $field }}{{ include "sandbox.checkDuration" (dict "key" (printf "%s.%s" $key $field) "text" .) }}{{ end -}}
{{- end -}}
{{- if and $profile.maxTTL $profile.maxLifetime (gt (include "sandbox.seconds" ($profile.maxTTL | default "1s") | int64) (include "sandbox.lifetime" $profile | int64)) -}}
{{- fail (printf "%s: maxLifetime (%s) is less than maxTTL (%s)" $key $profile.maxLifetime $profile.maxTTL) -}}
{{- end -}}
{{- range $resource, $hard := $profile.resourceQuota -}}
{{- $number := include "sandbox.number" (dict "key" (printf "%s.resourceQuota.%s" $key $resource) "text" $hard) | float64 -}}
{{- $whole := not (or (regexMatch "(cpu|memory|storage)$" $resource) (contains "hugepages" $resource)) -}}
{{- if contains "/" $resource }}{{ $whole = not (or (hasPrefix "requests." $resource) (contains "kubernetes.io/" $resource)) }}{{ end -}}
{{- if and $whole (ne $number (floor $number)) }}{{ fail (printf "%s.resourceQuota.%s (%v) must be a whole number" $key $resource $hard) }}{{ end -}}
{{- end -}}
{{- $types := list -}}
{{- range $index, $item := $profile.limitRange -}}
{{- $types = append $types $item.type -}}
{{- include "sandbox.checkLimits" (dict "key" (printf "%s.limitRange[%d]" $key $index) "item" $item) -}}
{{- end -}}
{{- if ne (len $types) (len ($types | uniq)) }}{{ fail (printf "%s: limitRange has two items of one type: Kubernetes takes one of each" $key) }}{{ end -}}
{{- if and $profile.egress (ne ($profile.network | default "isolated") "restricted") }}{{ fail (printf "%s: egress is for network: restricted" $key) }}{{ end -}}
{{- range $index, $rule := $profile.egress }}{{ include "sandbox.checkEgress" (dict "key" (printf "%s.egress[%d]" $key $index) "rule" $rule) }}{{ end -}}
{{- range $profile.allowedKinds -}}
{{- if has . ($profile.forbiddenKinds | default list) }}{{ fail (printf "%s: %s is in allowedKinds and in forbiddenKinds" $key .) }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "sandbox.checkLimits" -}}
{{- $key := .key -}}
{{- $item := .item -}}
{{- if and (ne $item.type "Container") (or $item.default $item.defaultRequest) }}{{ fail (printf "%s: default and defaultRequest are for containers, not for %s" $key $item.type) }}{{ end -}}
{{- if and (eq $item.type "PersistentVolumeClaim") (not (hasKey ($item.min | default dict) "storage")) (not (hasKey ($item.max | default dict) "storage")) -}}
{{- fail (printf "%s: an item for PersistentVolumeClaim needs min.storage or max.storage" $key) -}}
{{- end -}}
{{- range $resource, $ratio := $item.maxLimitRequestRatio -}}
{{- if lt (include "sandbox.number" (dict "key" $key "text" $ratio) | float64) 1.0 }}{{ fail (printf "%s: maxLimitRequestRatio.%s (%v) is less than 1" $key $resource $ratio) }}{{ end -}}
{{- end -}}
{{- $bounds := list "min" "defaultRequest" "default" "max" -}}
{{- range $i, $low := $bounds -}}
{{- range $j, $high := $bounds -}}
{{- if lt $i $j -}}
{{- range $resource, $least := get $item $low | default dict -}}
{{- $most := get (get $item $high | default dict) $resource -}}
{{- if ne (toString $most) "" -}}
{{- if gt (include "sandbox.number" (dict "key" $key "text" $least) | float64) (include "sandbox.number" (dict "key" $key "text" $most) | float64) -}}
{{- fail (printf "%s: %s.%s (%v) is more than %s.%s (%v)" $key $low $resource $least $high $resource $most) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sandbox.checkEgress" -}}
{{- $key := .key -}}
{{- $rule := .rule -}}
{{- $given := list -}}
{{- range list "cidr" "namespace" "namespaceLabels" }}{{ if get $rule . }}{{ $given = append $given . }}{{ end }}{{ end -}}
{{- if ne (len $given) 1 }}{{ fail (printf "%s: give one of cidr, namespace and namespaceLabels" $key) }}{{ end -}}
{{- if and $rule.except (not $rule.cidr) }}{{ fail (printf "%s: except belongs to cidr" $key) }}{{ end -}}
{{- range $rule.ports -}}
{{- if and .endPort (lt (int (.endPort | default 0)) (int .port)) }}{{ fail (printf "%s: endPort (%v) is less than port (%v)" $key .endPort .port) }}{{ end -}}
{{- end -}}
{{- range $cidr := concat (list $rule.cidr | compact) ($rule.except | default list) -}}
{{- if contains ":" $cidr | ne (contains ":" $rule.cidr) }}{{ fail (printf "%s.except: %s is not within %s" $key $cidr $rule.cidr) }}{{ end -}}
{{- if not (contains ":" $cidr) -}}
{{- $inner := include "sandbox.addresses" (dict "key" $key "cidr" $cidr) | fromJsonArray -}}
{{- $outer := include "sandbox.addresses" (dict "key" $key "cidr" $rule.cidr) | fromJsonArray -}}
{{- if or (lt (index $inner 0 | int64) (index $outer 0 | int64)) (gt (index $inner 1 | int64) (index $outer 1 | int64)) }}{{ fail (printf "%s.except: %s is not within %s" $key $cidr $rule.cidr) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* First and last address of an IPv4 range, as numbers. */}}
{{- define "sandbox.addresses" -}}
{{- $wrong := printf "%s: %q is not a range of addresses such as 10.20.0.0/16" .key .cidr -}}
{{- $parts := splitList "/" .cidr -}}
{{- $bits := 32 -}}
{{- if gt (len $parts) 1 }}{{ $bits = index $parts 1 | atoi }}{{ end -}}
{{- $first := 0 -}}
{{- range splitList "." (index $parts 0) -}}
{{- if gt (atoi .) 255 }}{{ fail $wrong }}{{ end -}}
{{- $first = add (mul $first 256) (atoi .) -}}
{{- end -}}
{{- if gt $bits 32 }}{{ fail $wrong }}{{ end -}}
{{- $size := 1 -}}
{{- range until (sub 32 $bits | int) }}{{ $size = mul $size 2 }}{{ end -}}
{{- if ne (mod $first $size) 0 }}{{ fail (printf "%s (it has bits behind its prefix)" $wrong) }}{{ end -}}
{{- list $first (sub (add $first $size) 1) | toJson -}}
{{- end }}

{{/* A quantity as a number; the schema says how they are written. */}}
{{- define "sandbox.number" -}}
{{- $text := toString .text | trim | trimPrefix "+" -}}
{{- $suffix := regexFind "([numkMGTPE]|[KMGTPE]i)$" $text -}}
{{- $factors := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- $number := mulf (trimSuffix $suffix $text | float64) (get $factors $suffix | default 1.0) -}}
{{- if gt $number 1e30 }}{{ fail (printf "%s: %q is more than any cluster has" .key $text) }}{{ end -}}
{{- $number -}}
{{- end }}
