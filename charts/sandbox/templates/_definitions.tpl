{{/* Labels of everything that the chart makes. Not managed-by=sandbox: that marks sandboxes. */}}
{{- define "sandbox.labels" -}}
app.kubernetes.io/name: sandbox
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The service account of the clean-up, and the user name that the API server knows it by. */}}
{{- define "sandbox.cleanup.account" -}}sandbox-cleanup{{- end }}
{{- define "sandbox.cleanup.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "sandbox.cleanup.account" . }}
{{- end }}

{{/* Seconds of a duration such as 30m, 8h, 2d, 1w or 1d12h. */}}
{{- define "sandbox.seconds" -}}
{{- $text := trim . -}}
{{- if not (regexMatch "^(?:[0-9]+w)?(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?$" $text) -}}
{{- fail (printf "%q is not a duration: write it as 30m, 8h, 2d, 1w or combined as 1d12h" $text) -}}
{{- end -}}
{{- $seconds := 0 -}}
{{- range $unit, $size := dict "w" 604800 "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- with regexFind (printf "[0-9]+%s" $unit) $text -}}
{{- $seconds = add $seconds (mul (trimSuffix $unit . | int64) $size) -}}
{{- end -}}
{{- end -}}
{{- $seconds -}}
{{- end }}

{{/*
How long a sandbox of a profile may live, in seconds: maxLifetime, else four times maxTTL, else 30 days
(as QuotaProfile.lifetime of the tool says; a test holds both equal).
*/}}
{{- define "sandbox.lifetime" -}}
{{- if .maxLifetime -}}
{{- include "sandbox.seconds" .maxLifetime -}}
{{- else if .maxTTL -}}
{{- mul 4 (include "sandbox.seconds" .maxTTL | int64) -}}
{{- else -}}
2592000
{{- end -}}
{{- end }}

{{/*
A value as a CEL literal. Every part is made dyn: CEL refuses literals whose parts are of several types, and a
comparison with what the API server has is made at run time anyway.
*/}}
{{- define "sandbox.cel" -}}
{{- if kindIs "map" . -}}
{{- $map := . -}}
dyn({ {{- range $i, $key := keys . | sortAlpha }}{{ if $i }}, {{ end }}{{ $key | toJson }}: {{ include "sandbox.cel" (get $map $key) }}{{ end -}} })
{{- else if kindIs "slice" . -}}
dyn([ {{- range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "sandbox.cel" $item }}{{ end -}} ])
{{- else if or (kindIs "float64" .) (kindIs "int64" .) (kindIs "int" .) -}}
dyn({{ . | int64 }})
{{- else -}}
dyn({{ . | toJson }})
{{- end -}}
{{- end }}

{{/* Quantities as text: `pods: 20` means the same as `pods: "20"`. */}}
{{- define "sandbox.quantities" -}}
{{- $texts := dict -}}
{{- range $resource, $quantity := . -}}
{{- if kindIs "float64" $quantity -}}
{{- $quantity = trimSuffix ".0" (toJson $quantity) -}}
{{- end -}}
{{- $_ := set $texts $resource (toString $quantity) -}}
{{- end -}}
{{- toJson $texts -}}
{{- end }}

{{/*
The items of a profile's LimitRange as the API server completes them (SetDefaults_LimitRangeItem): for containers,
default is filled up from max, defaultRequest from default and then from min.
*/}}
{{- define "sandbox.limits" -}}
{{- $items := list -}}
{{- range .limitRange -}}
{{- $item := dict "type" .type -}}
{{- $given := . -}}
{{- range $part := list "default" "defaultRequest" "max" "min" "maxLimitRequestRatio" -}}
{{- $_ := set $item $part (include "sandbox.quantities" (get $given $part | default dict) | fromJson) -}}
{{- end -}}
{{- if eq .type "Container" -}}
{{- $_ := set $item "default" (merge (deepCopy $item.default) $item.max) -}}
{{- $_ := set $item "defaultRequest" (merge (deepCopy $item.defaultRequest) $item.default $item.min) -}}
{{- end -}}
{{- $items = append $items $item -}}
{{- end -}}
{{- dict "items" $items | toJson -}}
{{- end }}

{{/* The spec of a profile's NetworkPolicy, as the tool applies it (provision/guardrails.py; a test holds both equal). */}}
{{- define "sandbox.networkPolicy" -}}
{{- $itself := dict "podSelector" dict -}}
{{- $marked := dict "namespaceSelector" (dict "matchLabels" (dict "sandbox.dev/allow-ingress" "true")) -}}
{{- $spec := dict "podSelector" dict "policyTypes" (list "Ingress") "ingress" (list (dict "from" (list $itself $marked))) -}}
{{- if eq (.network | default "isolated") "restricted" -}}
{{- $dns := list -}}
{{- $local := list -}}
{{- range $number := list 53 5353 -}}
{{- range $protocol := list "UDP" "TCP" -}}
{{- $dns = append $dns (dict "protocol" $protocol "port" $number) -}}
{{- end -}}
{{- end -}}
{{- range $protocol := list "UDP" "TCP" -}}
{{- $local = append $local (dict "protocol" $protocol "port" 53) -}}
{{- end -}}
{{- $egress := list
      (dict "to" (list $itself))
      (dict "to" (list (dict "namespaceSelector" dict)) "ports" $dns)
      (dict "to" (list (dict "ipBlock" (dict "cidr" "169.254.20.10/32"))) "ports" $local) -}}
{{- range .egress -}}
{{- $peer := dict -}}
{{- if .cidr -}}
{{- $block := dict "cidr" .cidr -}}
{{- with .except }}{{ $_ := set $block "except" . }}{{ end -}}
{{- $peer = dict "ipBlock" $block -}}
{{- else if .namespace -}}
{{- $peer = dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" .namespace)) -}}
{{- else -}}
{{- $peer = dict "namespaceSelector" (dict "matchLabels" .namespaceLabels) -}}
{{- end -}}
{{- $rule := dict "to" (list $peer) -}}
{{- if .ports -}}
{{- $ports := list -}}
{{- range .ports -}}
{{- $ports = append $ports (merge (dict "protocol" (.protocol | default "TCP")) .) -}}
{{- end -}}
{{- $_ := set $rule "ports" $ports -}}
{{- end -}}
{{- $egress = append $egress $rule -}}
{{- end -}}
{{- $_ := set $spec "policyTypes" (list "Ingress" "Egress") -}}
{{- $_ := set $spec "egress" $egress -}}
{{- end -}}
{{- toJson $spec -}}
{{- end }}

{{/* Who the policies do not bind: the API server's own, the system's controllers, nodes, and the admins of the values. */}}
{{- define "sandbox.exempt" -}}
{{- $users := concat (list "system:apiserver" "system:kube-controller-manager" "system:kube-scheduler") .Values.admission.exempt.users -}}
{{- $groups := concat (list "system:nodes" "system:serviceaccounts:kube-system") .Values.admission.exempt.groups -}}
(request.userInfo.username in {{ toJson $users }} || request.userInfo.groups.exists(g, g in {{ toJson $groups }}))
{{- end }}

{{/* Whether somebody is exempt by name: not the system's controllers, who make what an owner's templates say. */}}
{{- define "sandbox.exemptByName" -}}
(request.userInfo.username in {{ toJson .Values.admission.exempt.users }} || request.userInfo.groups.exists(g, g in {{ toJson .Values.admission.exempt.groups }}))
{{- end }}

{{/* Whether the label of sandboxes is on `object` or `oldObject` (the argument). */}}
{{- define "sandbox.isSandbox" -}}
({{ . }}.metadata.?labels[?"app.kubernetes.io/managed-by"].orValue("") == "sandbox")
{{- end }}

{{/*
Whether somebody's right to make a RoleBinding in the namespace comes from this chart alone: they may bind the
owner's role, and may not delete RoleBindings there.
*/}}
{{- define "sandbox.boundByUs" -}}
(authorizer.group("rbac.authorization.k8s.io").resource("clusterroles").namespace(request.namespace).name("sandbox-owner").check("bind").allowed() && !authorizer.group("rbac.authorization.k8s.io").resource("rolebindings").namespace(request.namespace).check("delete").allowed())
{{- end }}

{{/* Whether somebody may finish namespaces that end, as the namespace controller does. No owner of a sandbox may. */}}
{{- define "sandbox.finishes" -}}
authorizer.group("").resource("namespaces").subresource("finalize").check("update").allowed()
{{- end }}

{{/*
Namespaces to which these values give something, by a name that a sandbox would only have to take: those of
ServiceAccounts, and those that profiles let out to.
*/}}
{{- define "sandbox.namedNamespaces" -}}
{{- $named := list "sandbox-system" "sandbox-locks" -}}
{{- range concat .Values.access.developerGroups .Values.access.ciGroups .Values.access.sharing.groups .Values.admission.exempt.groups -}}
{{- if hasPrefix "system:serviceaccounts:" . }}{{ $named = append $named (trimPrefix "system:serviceaccounts:" .) }}{{ end -}}
{{- end -}}
{{- range concat .Values.access.sharing.users .Values.admission.exempt.users -}}
{{- if hasPrefix "system:serviceaccount:" . }}{{ $named = append $named (index (splitList ":" .) 2) }}{{ end -}}
{{- end -}}
{{- range .Values.profiles -}}
{{- range .egress -}}
{{- with .namespace }}{{ $named = append $named . }}{{ end -}}
{{- with .namespaceLabels }}{{ with get . "kubernetes.io/metadata.name" }}{{ $named = append $named . }}{{ end }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $named | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* Patterns of names that are not for sandboxes; one that is no regular expression fails here and not on every request. */}}
{{- define "sandbox.reservedNames" -}}
{{- range .Values.admission.reservedNames }}{{ $_ := mustRegexMatch . "" }}{{ end -}}
{{- concat (list "^(kube-|openshift-|default$)") .Values.admission.reservedNames | uniq | toJson -}}
{{- end }}

{{/* No annotation by which an ingress controller or external-dns would take hosts that are not in the spec. */}}
{{- define "sandbox.noHostsByAnnotation" -}}
object.metadata.?annotations.orValue({}).all(key, !["server-alias", "snippet", "external-dns"].exists(word, key.contains(word)))
{{- end }}

{{/* Only requests in sandboxes. The label cannot be taken off one (policy sandbox-namespaces), so this is safe. */}}
{{- define "sandbox.inSandboxes" -}}
namespaceSelector:
  matchLabels:
    app.kubernetes.io/managed-by: sandbox
{{- end }}

{{/* A binding that makes a policy hold everywhere; what it is about, the policy itself says. */}}
{{- define "sandbox.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "sandbox.labels" .root | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- with .paramRef }}
  paramRef:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
