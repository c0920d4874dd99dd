# SPDX-License-Identifier: Apache-2.0
"""`probetop serve`: the HTTP agent, one more reader of a Source; it never imports Textual."""
