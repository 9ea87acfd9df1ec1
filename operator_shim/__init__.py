"""The operator: drives AIMArtifacts and their kin from what is observed to what is asked for."""
