package org.example;

import java.util.Map;

import org.springframework.beans.factory.ObjectProvider;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.config.annotation.web.configurers.AbstractHttpConfigurer;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.jwt.JwtDecoder;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RestController;

/** An API that names its client. Everything else about tokens is in application.yaml. */
@SpringBootApplication
@RestController
public class Api {

    public static void main(String[] arguments) {
        SpringApplication.run(Api.class, arguments);
    }

    /** Checks signatures if application.yaml has keys, and introspects otherwise. */
    @Bean
    SecurityFilterChain security(
        HttpSecurity http, ObjectProvider<JwtDecoder> decoder, @Value("${api.scope}") String scope
    ) throws Exception {
        http.csrf(AbstractHttpConfigurer::disable);
        http.authorizeHttpRequests(each -> each.anyRequest().hasAuthority("SCOPE_" + scope));
        http.oauth2ResourceServer(server -> {
            if (decoder.getIfAvailable() == null) {
                server.opaqueToken(Customizer.withDefaults());
            } else {
                server.jwt(Customizer.withDefaults());
            }
        });
        return http.build();
    }

    @PostMapping("/")
    Map<String, String> answer(Authentication authentication) {
        return Map.of("client", authentication.getName());
    }
}
