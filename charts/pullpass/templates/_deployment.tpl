{{/*
The Deployment of a component. Arguments: root, component, values, and own, which has
what is specific to the component: terminationGracePeriodSeconds, args, env, ports,
volumes and volumeMounts.
*/}}
{{- define "pullpass.deployment" -}}
{{- $root := .root -}}
{{- $values := .values -}}
{{- $own := .own -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "pullpass.metadata" (dict "root" $root "component" .component "name" (printf "%s-%s" (include "pullpass.fullname" $root) .component) "annotations" $values.annotations) | nindent 2 }}
spec:
  {{- /* Without a number, something else sets it, such as a HorizontalPodAutoscaler. */}}
  {{- if include "pullpass.given" $values.replicas }}
  replicas: {{ $values.replicas }}
  {{- end }}
  {{- if include "pullpass.given" $root.Values.revisionHistoryLimit }}
  revisionHistoryLimit: {{ $root.Values.revisionHistoryLimit }}
  {{- end }}
  strategy:
    {{- if $values.strategy }}
    {{- toYaml $values.strategy | nindent 4 }}
    {{- else if or $values.hostNetwork (and (eq .component "renewer") (not $values.leaderElect)) }}
    # An old pod has to stop before a new one starts: it holds the node's ports, or nothing
    # else keeps two renewers from working at once.
    rollingUpdate:
      maxSurge: 0
      maxUnavailable: 1
    {{- else }}
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
    {{- end }}
  selector:
    matchLabels:
      {{- include "pullpass.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "pullpass.podLabels" . | nindent 8 }}
      {{- with $values.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "pullpass.serviceAccountName" . | quote }}
      automountServiceAccountToken: {{ $values.automountServiceAccountToken }}
      {{- if $values.hostNetwork }}
      hostNetwork: true
      {{- end }}
      {{- with $values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" $values.hostNetwork) }}
      dnsPolicy: {{ . }}
      {{- end }}
      terminationGracePeriodSeconds: {{ $own.terminationGracePeriodSeconds }}
      {{- include "pullpass.podBasics" $root | nindent 6 }}
      {{- with $values.initContainers }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "pullpass.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [/{{ .component }}]
          args:
            {{- concat $own.args ($values.extraArgs | default list) | toYaml | nindent 12 }}
          {{- /* A variable of the user replaces the chart's of the same name. Server-side
            apply rejects duplicates. */}}
          {{- $env := list }}
          {{- $names := list }}
          {{- range $values.extraEnv }}
            {{- $names = append $names .name }}
          {{- end }}
          {{- range $own.env }}
            {{- if not (has .name $names) }}
              {{- $env = append $env . }}
            {{- end }}
          {{- end }}
          {{- with concat $env ($values.extraEnv | default list) }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $values.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- toYaml $own.ports | nindent 12 }}
          {{- include "pullpass.probes" $root | nindent 10 }}
          {{- with $values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- include "pullpass.containerSecurityContext" $root | nindent 10 }}
          {{- with concat ($own.volumeMounts | default list) ($values.extraVolumeMounts | default list) }}
          volumeMounts:
            {{- toYaml . | nindent 12 }}
          {{- end }}
        {{- with $values.extraContainers }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with concat ($own.volumes | default list) ($values.extraVolumes | default list) }}
      volumes:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- include "pullpass.scheduling" . | nindent 6 }}
{{- end }}

{{/* The scheduling fields of a component's pods, and podSpec. */}}
{{- define "pullpass.scheduling" -}}
{{- with .values.priorityClassName -}}
priorityClassName: {{ . | quote }}
{{ end -}}
{{- with .values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .values.affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{ end -}}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- $selector := dict "matchLabels" (include "pullpass.selectorLabels" . | fromYaml) }}
  {{- range .values.topologySpreadConstraints }}
  - {{- merge (dict "labelSelector" (.labelSelector | default $selector)) . | toYaml | nindent 4 }}
  {{- end }}
{{- else }}
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "pullpass.selectorLabels" . | nindent 8 }}
{{- end }}
{{- with .values.podSpec }}
{{ toYaml . }}
{{- end }}
{{- end }}
